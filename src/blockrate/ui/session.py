"""The one open config of the app: all pages show it, every change is checked, and what is not saved is not lost."""

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from nicegui import Event

from blockrate.config.concepts import concept_problems
from blockrate.config.explain import defaults
from blockrate.config.files import FINE_TUNE_DEFAULTS, LISTS, find_problems, put, read_object
from blockrate.config.onetrainer import Json, known_names, migrate, migrate_concepts
from blockrate.config.plan import Plan, make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError, ConfigError, FileError
from blockrate.core.multipliers import KEY
from blockrate.run.durable import atomic_write
from blockrate.ui.preferences import Preferences, load_preferences, state_folder, write_state

_PAUSE = 0.5  # seconds without a change before the draft is written
_UNKNOWN = object()
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Problem:
    """A field that is wrong, by its path (``""``: the file), and a sentence with the cure.

    ``removable``: a key that blockrate does not know or support, or one of which no control can edit the wrong value.
    """

    field: str
    text: str
    removable: bool = False


class FileChanged(ConfigError):  # noqa: N818 (what happened, told as a question)
    """The file to be saved is not the one that was opened; saving would lose what another program wrote."""


class Source(Protocol):
    """What a form field edits: the session, or a window's draft."""

    changed: Event[[]]

    def get(self, path: str) -> Any:
        """Return the user's value, which may be wrong, else the default."""

    def set(self, values: Mapping[str, Any]) -> None:
        """Take values by path, as one change."""

    def problem(self, path: str) -> str:
        """Return what is wrong with a field, ``""`` if nothing."""


@dataclass(frozen=True)
class Checked:
    """What a config comes to. There is a ``config`` as soon as ``load_config`` would take it, problems or not."""

    config: TrainConfig | None
    plan: Plan | None
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    lists: Json  # concepts and samples, also from files of their own

    def problem(self, path: str) -> str:
        """Return what is wrong with a field or inside it, ``""`` if nothing."""
        inside = [item for item in self.problems if f"{item.field}.".startswith(f"{path}.")]
        texts = [item.text.removeprefix(f"{path}: ") for item in inside]
        return " ".join(text[:1].upper() + text[1:] for text in texts)


@dataclass(frozen=True)
class _Document:
    """What is open, and what must be known of its file to save it."""

    data: Json
    title: str = "New config"
    path: str = ""
    saved: str = "{}"  # the data when opened or saved
    digest: str = ""  # of the file then
    foreign: bool = False  # OneTrainer's or of older names: copied before it is written
    notes: tuple[str, ...] = ()

    @property
    def dirty(self) -> bool:
        return _canonical(self.data) != self.saved

    @property
    def draft(self) -> Path:
        name = hashlib.sha256(self.path.encode(errors="replace")).hexdigest()[:16] if self.path else "unnamed"
        return Path("drafts", f"{name}.json")


class Session:
    """The open config and what is known of it. Attributes are to be read; methods change them and emit ``changed``."""

    data: Json
    path: Path | None
    title: str
    dirty: bool
    config: TrainConfig | None
    plan: Plan | None
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]

    def __init__(self, preferences: Preferences | None = None) -> None:
        self.changed: Event[[]] = Event()
        self.revision = 0
        self.last_good = TrainConfig()
        self._preferences = preferences or load_preferences()
        self._document, self._timer, self._writing = _Document({}), threading.Timer(0, self.keep), threading.Lock()
        self._draft_fails = ""
        self._become(self._document)

    def get(self, path: str) -> Any:
        """Return the user's value at a path, as it stands even if wrong; else the default. A copy."""
        return _value({**self.data, **_read_in(self.data, self.checked.lists)}, path)

    def set(self, values: Mapping[str, Any]) -> None:
        """Write values by path as one revision; a path may lead into lists. What is as before stays untouched."""
        self.change(values, ())

    def remove(self, *paths: str) -> None:
        """Bring settings back to their defaults, drop unknown keys, take entries out of lists."""
        self.change({}, paths)

    def change(self, values: Mapping[str, Any], removed: Iterable[str]) -> None:
        """Remove and set as one revision."""
        document = self._with_changes(values, removed)
        if _canonical(document.data) != _canonical(self.data):
            self._become(document)

    def problem(self, path: str) -> str:
        """Return what is wrong with a field or inside it, ``""`` if nothing."""
        return self.checked.problem(path)

    def _with_changes(self, values: Mapping[str, Any], removed: Iterable[str]) -> _Document:
        """Return what ``change`` would make of the open config. Raises ConfigError for an entry that no list has."""
        data, lists, notes = _copied(self.data), self.checked.lists, list(self._document.notes)
        # the last entries first, so that the places of the others stay
        for path in sorted(removed, key=lambda path: [(len(name), name) for name in path.split(".")], reverse=True):
            notes += _take_in(data, lists, path)
            _drop(data, path)
        for path, value in values.items():
            if not _same(_value({**data, **_read_in(data, lists)}, path), value):
                notes += _take_in(data, lists, path)
                put(data, path, _copied(value), replace=True)
        return replace(self._document, data=data, notes=tuple(dict.fromkeys(notes)))

    def open(self, path: Path) -> None:
        """Open a file of blockrate or OneTrainer, right or wrong. Raises ConfigError only if it is no JSON object."""
        path = path.expanduser().resolve()
        self.replace(read_object(path), path=path, title=path.name)
        self._remember(path)

    def open_named(self, name: str) -> None:
        """Open a copy of a preset or an example."""
        if name not in self.named():
            raise ConfigError(name, "there is no such preset or example", f"There are {', '.join(self.named())}.")
        self.replace(read_object(self.named()[name]), path=None, title=name)

    def new(self) -> None:
        """Open an empty config: every setting at its default."""
        self._become(_Document({}))

    @staticmethod
    def named() -> dict[str, Path]:
        """Return the presets, and the examples where this is a clone."""
        files = [*_PACKAGE.glob("config/presets/*.json"), *_PACKAGE.parents[1].glob("examples/*.json")]
        return {path.stem: path for path in sorted(files)}

    def replace(self, data: Json, *, path: Path | None, title: str) -> None:
        """Open something else; older names become today's. Raises ConfigError for what is nested too deeply."""
        try:
            before, data = _copied(data), _copied(data)
            notes = migrate(data)
            migrate_concepts(data)
            version = {"__version": before["__version"]} if "__version" in before else {}
            migrated = _canonical(data | version) != _canonical(before)
            if migrated:
                gone = ", ".join(key for key in before if key not in data and key not in version)
                notes.append(f"older names and values are read as today's: {gone}".removesuffix(": "))
            document = _Document(
                data=data if migrated else before,
                title=title,
                path=str(path or ""),
                digest=_digest(path) if path else "",
                foreign=migrated or "__version" in before or bool(known_names() & before.keys()),
                notes=tuple(notes),
            )
            self._become(replace(document, saved=_canonical(document.data)))
        except RecursionError as error:
            raise ConfigError(str(path or title), "is nested too deeply to be a config", "Use another file.") from error

    def save(self, path: Path | None = None, *, overwrite: bool = False) -> None:
        """Write the config to its file, or to another one that is then the open one.

        Raises FileChanged if a file is there that is not the one that was opened, unless ``overwrite``; WriteError.
        """
        target = path or self.path
        if not target:
            raise ConfigError(self.title, "has no file yet", "Choose one with Save as.")
        target = target.expanduser().resolve()
        document, own = self._document, target == self.path
        if not overwrite and target.exists() and _digest(target) != (document.digest if own else ""):
            problem = "was changed by another program since it was opened" if own else "exists already"
            raise FileChanged(str(target), problem, "Overwrite it, or use another name.")
        if own and document.foreign and target.exists():
            atomic_write(_free_name(target), target.read_bytes())
        content = json.dumps(self.data, indent=2, ensure_ascii=False) + "\n"
        atomic_write(target, content.encode(errors="backslashreplace"))  # half a character, written as JSON writes it
        saved = _Document(self.data, target.name, str(target), _canonical(self.data), _digest(target))
        self._become(saved)
        self._remember(target)

    def restore(self, config: Path | None = None) -> None:
        """Go on where the last start ended: with what was not saved, else with the newest file.

        ``config``: go on with this file, changes not saved included. Raises ConfigError if it is no JSON object.
        """
        drafts = sorted((state_folder() / "drafts").glob("*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
        if config:
            drafts = [state_folder() / _Document({}, path=str(config.expanduser().resolve())).draft]
        for draft in drafts:
            with suppress(OSError, ValueError, TypeError, AttributeError):
                document = _Document(**json.loads(draft.read_bytes()))
                note = "changes that were not saved last time are here again"
                return self._become(replace(document, notes=(*dict.fromkeys((*document.notes, note)),)))
        if config:
            return self.open(config)
        for recent in self._preferences.recent[:1]:
            with suppress(ConfigError):
                self.open(Path(recent))

    def keep(self) -> None:
        """Write the draft now, or take it away where everything is saved; else that is done after a short pause."""
        with self._writing:
            document = self._document
            try:
                if document.dirty:
                    write_state(str(document.draft), json.dumps(asdict(document)))
                self._draft_fails = ""
            except BlockrateError as error:
                self._draft_fails = f"changes not saved would be lost in a crash: {error}"

    def _become(self, document: _Document) -> None:
        """Make this the open config, check it, and tell everybody."""
        checked, before = check(document.data), self._document
        self._document, self.checked, self.data, self.title = document, checked, document.data, document.title
        self.path, self.dirty = Path(document.path) if document.path else None, document.dirty
        self.config, self.plan, self.problems = checked.config, checked.plan, checked.problems
        self.warnings = (*document.notes, *checked.warnings, *filter(None, [self._draft_fails]))
        self.last_good = checked.config or self.last_good
        self.revision += 1
        self._timer.cancel()
        if before.dirty and not (self.dirty and before.draft == document.draft):
            with self._writing, suppress(OSError):
                (state_folder() / before.draft).unlink()
        if self.dirty:
            self._timer = threading.Timer(_PAUSE, self.keep)  # of its own thread: the program waits for it at its end
            self._timer.start()
        self.changed.emit()

    def _remember(self, path: Path) -> None:
        with suppress(BlockrateError):  # a list of recent files is no reason to fail
            self._preferences.used(path)


class Draft:
    """Values of a window that are not in the config yet; everything else is the session's."""

    def __init__(self, session: Session, paths: Sequence[str]) -> None:
        self.changed: Event[[]] = Event()
        self._session, self._paths = session, tuple(paths)
        self._before = {path: session.get(path) for path in paths}
        self._values: dict[str, Any] = {}
        self._removed: tuple[str, ...] = ()
        self._made_at, self._data, self._checked = session.revision, session.data, session.checked

    @property
    def checked(self) -> Checked:
        """What the config would come to with these values."""
        if self._made_at != self._session.revision:
            self._data = self._session._with_changes(self._values, self._removed).data
            self._checked, self._made_at = check(self._data), self._session.revision
        return self._checked

    def get(self, path: str) -> Any:
        """Return the value in the window, else the session's."""
        lists = self.checked.lists
        return _value({**self._data, **_read_in(self._data, lists)}, path)

    def set(self, values: Mapping[str, Any]) -> None:
        """Take values by path, as one change."""
        self._before = {path: self._session.get(path) for path in values} | self._before
        self._values = {**self._values, **_copied(dict(values))}
        self._tell()

    def problem(self, path: str) -> str:
        """Return what would be wrong with a field, ``""`` if nothing."""
        return self.checked.problem(path)

    def reset(self) -> None:
        """Bring every path of the window to its default."""
        self._values, self._removed = {}, self._paths
        self._tell()

    def changes(self) -> dict[str, Any]:
        """Return the values that differ from those when the window was opened, by path."""
        values = {path: self.get(path) for path in self._before}
        return {path: value for path, value in values.items() if not _same(value, self._before[path])}

    @property
    def dirty(self) -> bool:
        """Whether OK would change anything."""
        return bool(self.changes())

    @property
    def stale(self) -> bool:
        """Whether the session has changed one of these paths since the window was opened."""
        return any(not _same(self._session.get(path), value) for path, value in self._before.items())

    def ok(self) -> None:
        """Write the values into the session, as one revision."""
        self._session.change(self._values, self._removed)

    def _tell(self) -> None:
        self._made_at = -1
        self.changed.emit()


def check(data: Json) -> Checked:
    """Return what a migrated config comes to, with everything that stands in the way of a start."""
    found = find_problems(_copied(data))
    config, plan, errors = found.config, None, list(found.errors)
    if config:
        errors += concept_problems(config)
        try:
            plan = make_plan(config)
        except ConfigError as error:
            errors.append(error)
        except FileError as error:
            where = "transformer.model_name" if config.transformer.model_name else "base_model_name"
            errors.append(ConfigError(where, f"{error.where} {error.problem}", error.cure))
    problems = tuple(dict.fromkeys(_problem(error, data) for error in errors))
    return Checked(config, plan, problems, (*found.warnings, *(plan.warnings if plan else ())), found.lists)


def _problem(error: ConfigError, data: Json) -> Problem:
    field = re.sub(r"\[(\d+)\]", r".\1", error.where)
    usual, there = defaults().get(_any_entry(field), _UNKNOWN), _find(data, field)
    text = str(ConfigError(field, error.problem, error.cure.replace("--ignore-unsupported", "remove it")))
    if usual is _UNKNOWN:
        return Problem(field if there else "", text, removable=bool(there))
    return Problem(field, text, removable=bool(there) and isinstance(usual, dict | list))


def _value(data: Json, path: str) -> Any:
    """Return a copy of what stands at a path, else the default."""
    if found := _find(data, path):
        return _copied(found[0][found[1]])
    if path in FINE_TUNE_DEFAULTS and data.get("training_method") == "FINE_TUNE":
        return FINE_TUNE_DEFAULTS[path]
    return 1.0 if path.startswith(f"{KEY}.") else _copied(defaults().get(_any_entry(path)))


def _read_in(data: Json, lists: Json) -> Json:
    """Return the lists that ``data`` leaves to files of their own."""
    files = {key: lists.get(key, []) if data.get(name) else [] for key, (name, _) in LISTS.items()}
    return {key: entries for key, entries in files.items() if not data.get(key)}


def _take_in(data: Json, lists: Json, path: str) -> list[str]:
    """Before a list is edited that lies in a file of its own, put it into ``data``; return what to tell."""
    key = path.partition(".")[0]
    if key not in LISTS or not data.get(LISTS[key][0]):
        return []
    if not data.get(key):
        data[key] = _copied(lists.get(key, []))
    setting = LISTS[key][0]
    return [f"{setting}: {data.pop(setting)} is not used any more, its {key} are in this config now"]


def _find(node: Any, path: str) -> tuple[Any, Any] | None:
    """Return the object or list in which a path ends, and its key there; ``None`` where nothing is."""
    if isinstance(node, dict) and path in node:  # unknown keys may hold dots
        return node, path
    name, dot, rest = path.partition(".")
    key: Any = name
    if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
        key = int(name)
    elif not isinstance(node, dict) or name not in node:
        return None
    return _find(node[key], rest) if dot else (node, key)


def _drop(data: Json, path: str) -> None:
    """Remove what stands at a path, and the objects and lists that become empty by it, but no entry of a list."""
    if found := _find(data, path):
        del found[0][found[1]]
        parent = path.rpartition(".")[0]
        if not found[0] and not parent.rpartition(".")[2].isdecimal():
            _drop(data, parent)


def _same(one: Any, other: Any) -> bool:
    """Whether two values mean the same: 1 and 1.0 do, 1 and true do not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _any_entry(path: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".N", path)


def _copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _canonical(data: Json) -> str:
    return json.dumps(data, sort_keys=True)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.stem}.before{f'-{number}' * (number > 1)}{path.suffix}") for number in count(1))
    return next(name for name in names if not name.exists())
