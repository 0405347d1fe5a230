"""Where a run of a config is and writes, where the config leaves that open: by the name of its file, and found again.

The defaults of ``workspace_dir`` and ``output_model_destination`` stand in every saved config, so they choose nothing.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from blockrate.config.changes import goes_on, is_same
from blockrate.config.files import FINE_TUNE_DEFAULTS, load_config
from blockrate.config.train_config import TrainConfig
from blockrate.config.value_errors import default
from blockrate.core.errors import BlockrateError
from blockrate.core.plain_files import is_of_the_shell
from blockrate.run.checkpoints import checkpoints
from blockrate.run.durable import numbered
from blockrate.run.events import Finished, last_event
from blockrate.run.folder import RunFolder
from blockrate.run.results import Results

RUN = "workspace_dir"
RESULT = "output_model_destination"
PLACES = (RUN, RESULT)
_SUFFIX = ".safetensors"
_LONGEST = 200  # bytes of a name, which gets a suffix and a number


@dataclass(frozen=True)
class Source:
    """Where a config comes from. ``file``: None for one that has none. ``name``: of a preset or an example.

    ``chosen``: the settings that were given beside it, defaults too.
    """

    file: Path | None = None
    name: str = ""
    chosen: frozenset[str] = frozenset()

    @property
    def origin(self) -> str:
        """What a run remembers it by, ``""`` for what may be another config the next time."""
        return os.path.realpath(self.file) if self.file else ""

    @property
    def stem(self) -> str:
        """The name that its run and its result get, ``""`` if it has none."""
        name = self.file.stem if self.file else self.name
        if is_of_the_shell(name):
            return ""
        text = name.encode(errors="replace")[:_LONGEST].decode(errors="ignore")
        plain = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]', "-", text)
        return plain.removesuffix(_SUFFIX).strip(" .")


class Placed(NamedTuple):
    """A config with its places filled in.

    ``origin``: for the run to remember. ``note``: of what is not plain. ``chosen``: the config says where its run is.
    """

    config: TrainConfig
    origin: str
    note: str
    chosen: bool

    @property
    def run(self) -> RunFolder:
        """The run's folder."""
        return RunFolder(Path(self.config.workspace_dir))


def places_named(config: TrainConfig, name: str) -> dict[str, str]:
    """Return run folder and destination of a name, for a config to choose; nothing of a name without a letter."""
    stem = Source(None, name.strip()).stem
    if not stem:
        return {}
    folder = Path(default(RUN)).with_name(stem)
    return {RUN: str(folder), RESULT: str(_result_called(config, stem))}


def name_of_places(config: TrainConfig) -> str:
    """Return the name that a config's run folder and destination have in common, as ``places_named`` gives it."""
    name = Path(config.workspace_dir).name
    is_named = places_named(config, name) == {
        path: getattr(config, path) for path in PLACES
    }
    return name if is_named else ""


def _result_called(config: TrainConfig, name: str) -> Path:
    """Return where a result goes that has a name and no place of its own."""
    is_folder = config.writes_folder()
    usual = FINE_TUNE_DEFAULTS[RESULT] if is_folder else default(RESULT)
    return Path(usual).with_name(name if is_folder else f"{name}{_SUFFIX}")


def place(config: TrainConfig, source: Source) -> Placed:
    """Return a config with its run folder and its destination. Looks at the disk, and writes nothing."""
    own_folder = _folder_of_own_config(source)
    if own_folder:
        return _of_a_run(config, own_folder)
    return _Search(config, source).placed()


def place_anew(
    config: TrainConfig, source: Source, taken: Collection[str] = ()
) -> Placed:
    """Return a config with a run folder and a destination of its own: those of no earlier run.

    ``taken``: absolute paths that belong to others although nothing is there yet. What the
    config itself chooses stays. Looks at the disk, and writes nothing.
    """
    return _Search(config, source, frozenset(taken)).placed_anew()


def _folder_of_own_config(source: Source) -> Path | None:
    """Return the run folder whose own config a file is."""
    if source.file is None or source.file.name != "config.json":
        return None
    run = RunFolder(source.file.parent)
    return run.path if run.options_file.exists() else None


def _of_a_run(config: TrainConfig, folder: Path) -> Placed:
    """Place a run's own config: it goes on in that run, wherever we are."""
    if config.workspace_dir == default(RUN):
        config = config.model_copy(update={RUN: str(folder)})
    return Placed(config, "", "", chosen=True)


class _Search:
    """The search for the places of one config."""

    def __init__(
        self, config: TrainConfig, source: Source, taken: frozenset[str] = frozenset()
    ) -> None:
        self.config = config
        self.source = source
        self.taken = taken
        self.chooses_run = _chooses(config, RUN, source)
        self.chooses_result = _chooses(config, RESULT, source)
        self.home = Path(default(RUN)).parent
        self.plain = self.home / (source.stem or Path(default(RUN)).name)

    def placed(self) -> Placed:
        """Return the config with what was found, or with what is free."""
        if self.chooses_run:
            return self._filled(Path(self.config.workspace_dir), "")
        found = self._found()
        if found:
            note = f"the run of this config is in {found}, and goes on there"
            return self._filled(found, note)
        return self.placed_anew()

    def placed_anew(self) -> Placed:
        """Return the config with places that are free, where it chooses none."""
        if self.chooses_run:
            return self._filled(Path(self.config.workspace_dir), "")
        free = next(filter(self._is_free, _numbers(self.plain)))
        return self._filled(free, f"this run is in {free}: {self.plain} is taken")

    def _found(self) -> Path | None:
        """Return the folder in which this config was trained before."""
        folders = list(_runs_in(self.home))
        tests: tuple[Callable[[Path], bool], ...] = (
            self._remembers,
            self._fits,
            self._was_renamed,
        )
        for test in tests:
            for folder in folders:
                if test(folder):
                    return folder
        return None

    def _remembers(self, folder: Path) -> bool:
        origin = self.source.origin
        return bool(origin) and _origin(folder) == origin

    def _fits(self, folder: Path) -> bool:
        """Whether a run that remembers no config is of this one, by its name and by what it has learned from."""
        plain = self.home / Path(default(RUN)).name
        family = folder == plain or _is_numbered(folder, self.plain)
        if not family or _origin(folder):
            return False
        before = _config_of(folder)
        last = last_event(RunFolder(folder).events_file)
        finished = bool(last and isinstance(last.event, Finished) and last.step)
        return before is not None and goes_on(before, self.config, finished=finished)

    def _was_renamed(self, folder: Path) -> bool:
        """Whether a run is of a config that is gone from where it was, and has stayed as it was."""
        origin = _origin(folder)
        if not origin or not self.source.origin or os.path.exists(origin):
            return False
        before = _config_of(folder)
        return before is not None and is_same(before, self.config, but=PLACES)

    def _is_free(self, folder: Path) -> bool:
        """Whether nothing is in a folder, nor where its result would be."""
        if self._is_taken(folder) or _has_run(folder):
            return False
        if os.path.lexists(folder) and not folder.is_dir():
            return False
        result = self._result(folder)
        return self.chooses_result or not (
            self._is_taken(result) or os.path.lexists(result)
        )

    def _is_taken(self, path: Path) -> bool:
        return str(path.absolute()) in self.taken

    def _filled(self, folder: Path, note: str) -> Placed:
        """Return the config with its places; a run that goes on keeps its destination."""
        places = {}
        if not self.chooses_run:
            places[RUN] = str(folder)
        if not self.chooses_result:
            places[RESULT] = str(self._destination(folder))
            note += f"; it writes {places[RESULT]}"
        is_plain = self.chooses_run or folder == self.plain
        return Placed(
            self.config.model_copy(update=places),
            "" if self.chooses_run else self.source.origin,
            "" if is_plain else note,
            self.chooses_run,
        )

    def _destination(self, folder: Path) -> Path:
        before = _config_of(folder)
        if before and goes_on(before, self.config, finished=False):
            return Path(before.output_model_destination)
        results = Results(RunFolder(folder).events_file)
        return next(
            path
            for path in _numbers(self._result(folder))
            if not self._is_taken(path)
            and (not os.path.lexists(path) or results.own(path, contents=False))
        )

    def _result(self, folder: Path) -> Path:
        """Return the destination that has the name, and the number, of a run folder."""
        usual = FINE_TUNE_DEFAULTS if self.config.writes_folder() else {}
        name = self.source.stem or Path(usual.get(RESULT, default(RESULT))).stem
        if not self.chooses_run and _is_numbered(folder, self.plain):
            name += folder.name.removeprefix(self.plain.name)
        return _result_called(self.config, name)


def _chooses(config: TrainConfig, field: str, source: Source) -> bool:
    """Whether a config chooses a place: every saved one holds the default."""
    usual = {default(field), FINE_TUNE_DEFAULTS.get(field)}
    return field in source.chosen or getattr(config, field) not in usual


def _numbers(plain: Path) -> Iterator[Path]:
    """Yield a name, then itself with 2, 3 and so on."""
    return chain([plain], (numbered(plain, number) for number in count(2)))


def _is_numbered(folder: Path, plain: Path) -> bool:
    name = re.escape(plain.name) + r"(-\d+)?"
    return bool(re.fullmatch(name, folder.name))


def _runs_in(home: Path) -> Iterable[Path]:
    """Return the runs in a folder, by name."""
    with suppress(OSError):
        return sorted(path for path in home.iterdir() if _has_run(path))
    return ()


def _has_run(folder: Path) -> bool:
    run = RunFolder(folder)
    files = (run.options_file, run.config_file, run.events_file)
    return any(map(os.path.lexists, files)) or bool(checkpoints(run.checkpoints))


def _origin(folder: Path) -> str:
    origin = RunFolder(folder).options().get("origin")
    return origin if isinstance(origin, str) else ""


def _config_of(folder: Path) -> TrainConfig | None:
    """Return the config that a run was started with last."""
    with suppress(BlockrateError):
        file = RunFolder(folder).config_file
        return load_config(file, ignore_unsupported=True).config
    return None
