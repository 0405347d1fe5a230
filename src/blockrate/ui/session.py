"""The one open config of the app: all pages show it, every change is checked, and what is not saved is not lost."""

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from nicegui import Event

from blockrate.config.files import LISTS, read_object
from blockrate.config.onetrainer import (
    LAST_CHANGE,
    Json,
    known_names,
    migrate,
    migrate_concepts,
)
from blockrate.config.paths import drop, put
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.run.durable import atomic_write, disk_errors, make_folder
from blockrate.ui.checked import Checked, check, copied, last_first, usable
from blockrate.ui.preferences import Preferences, load_preferences, state_folder

_PAUSE = 0.5  # seconds without a change before the draft is written
_PACKAGE = Path(__file__).parents[1]


class FileChanged(ConfigError):  # noqa: N818 (what happened, told as a question)
    """The file to be saved is not the one that was opened; saving would lose what another program wrote."""


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
    # what pages remember of it that is in no config
    aside: Json = field(default_factory=dict)

    @property
    def dirty(self) -> bool:
        """Whether the data differ from those of the file."""
        return _canonical(self.data) != self.saved

    @property
    def worth_keeping(self) -> bool:
        """Whether a crash would lose anything that is opened again."""
        return self.dirty or bool(
            self.path and any(value is not None for value in self.aside.values())
        )

    @property
    def draft(self) -> str:
        """The name of the file that keeps it until it is saved."""
        name = (
            hashlib.sha256(self.path.encode(errors="replace")).hexdigest()[:16]
            if self.path
            else "unnamed"
        )
        return f"{name}.json"


class Session:
    """The open config and what is known of it. Attributes are to be read; methods change them and emit ``changed``.

    ``data``: as the user wrote it, unknown keys and wrong values too. ``config``, ``plan``: None while settings are
    wrong. ``problems``: all that blocks a start. ``usable``: the config; while settings are wrong, without them.
    ``opened``: counts what was opened.
    """

    def __init__(self, preferences: Preferences | None = None) -> None:
        self.changed: Event[[]] = Event()
        self.revision = 0
        self.opened = 0
        self.usable = TrainConfig()
        self.warnings: tuple[str, ...] = ()
        self._preferences = preferences or load_preferences()
        self._drafts = state_folder() / "drafts"
        self._document = _Document({})
        self._timer = threading.Timer(0, self.keep)
        self._writing = threading.Lock()
        self._become(self._document)

    def remember(self, name: str, value: Any) -> None:
        """Keep a thing that belongs to the open config and stands in no file; None forgets it."""
        if value == self.remembered(name):
            return  # nor is the draft touched that another unnamed config has left
        self._document = replace(
            self._document, aside={**self._document.aside, name: value}
        )
        self._keep_soon()

    def remembered(self, name: str) -> Any:
        """Return what was kept under a name, or None."""
        return self._document.aside.get(name)

    def get(self, path: str) -> Any:
        """Return a copy of the user's value, even if it is wrong, else the default."""
        return self.checked.get(path)

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

    def _with_changes(
        self, values: Mapping[str, Any], removed: Iterable[str]
    ) -> _Document:
        """Return what ``change`` would make of the open config. Raises ConfigError for an entry that no list has."""
        data = copied(self.data)
        notes = list(self._document.notes)
        removed = list(removed)
        for path in last_first(removed):
            notes += self._take_in(data, path)
            drop(data, path)
        for path, value in values.items():
            if removed or not _same(self.get(path), value):
                notes += self._take_in(data, path)
                put(data, path, copied(value), replace=True)
        return replace(self._document, data=data, notes=tuple(dict.fromkeys(notes)))

    def _take_in(self, data: Json, path: str) -> list[str]:
        """Before a list is edited that lies in a file of its own, put it into ``data``; return what to tell."""
        key = path.partition(".")[0]
        name = data.pop(LISTS[key][0], "") if key in LISTS else ""
        if not name:
            return []
        data[key] = copied(self.checked.whole.get(key, []))
        return [
            f"{LISTS[key][0]}: {name} is not used any more, its {key} are in this config now"
        ]

    def open(self, path: Path) -> None:
        """Open a file of blockrate or OneTrainer, right or wrong, with what a crash left unsaved of it.

        Raises ConfigError only if it is no JSON object.
        """
        path = path.expanduser().resolve()
        kept = (
            None
            if path == self.path
            else self._kept(self._drafts / _Document({}, path=str(path)).draft)
        )
        if kept and kept.dirty:
            self._go_on(kept)
        else:
            self.replace(read_object(path), path=path, title=path.name)
            self._document = replace(self._document, aside=kept.aside if kept else {})
        self._preferences.used(path)

    def open_named(self, name: str) -> None:
        """Open a copy of a preset or an example, one of ``named``."""
        self.replace(read_object(self.named()[name]), path=None, title=name)

    def recheck(self) -> None:
        """Check again: files that the config names may have come or gone."""
        self._become(self._document)

    def new(self) -> None:
        """Open an empty config: every setting at its default."""
        self.opened += 1
        self._become(_Document({}))

    @staticmethod
    def named() -> dict[str, Path]:
        """Return the presets, and the examples where this is a clone."""
        files = [
            *_PACKAGE.glob("config/presets/*.json"),
            *_PACKAGE.parents[1].glob("examples/*.json"),
        ]
        return {path.stem: path for path in sorted(files)}

    def replace(self, data: Json, *, path: Path | None, title: str) -> None:
        """Open something else; older names become today's. Raises ConfigError for what is nested too deeply."""
        try:
            before = copied(data)
            data = copied(data)
            version = data.get("__version")
            kept = (
                {"__version": version}
                if isinstance(version, int) and version >= LAST_CHANGE
                else {}
            )
            notes = migrate(data)
            migrate_concepts(data)
            if migrated := _canonical(data | kept) != _canonical(before):
                gone = ", ".join(
                    key for key in before if key not in {**data, "__version": 0}
                )
                notes.append(
                    f"the file is of an older form and read as today's: {gone}".removesuffix(
                        ": "
                    )
                )
            else:
                data = before
            foreign = (
                migrated or "__version" in before or bool(known_names() & before.keys())
            )
            digest = _digest(path) if path else ""
            self.opened = self.opened + 1
            self._become(
                _Document(
                    data,
                    title,
                    str(path or ""),
                    _canonical(data),
                    digest,
                    foreign,
                    (*notes,),
                )
            )
        except RecursionError as error:
            raise ConfigError(
                str(path or title),
                "is nested too deeply to be a config",
                "Use another file.",
            ) from error

    def save(self, path: Path | None = None, *, overwrite: bool = False) -> None:
        """Write the config to its file, or to another one that is then the open one.

        Raises FileChanged if a file is there that is not the one that was opened, unless ``overwrite``; WriteError.
        """
        target = path or self.path
        if not target:
            raise ConfigError(self.title, "has no file yet", "Choose one with Save as.")
        target = target.expanduser().resolve()
        document = self._document
        own = target == self.path
        if (
            not overwrite
            and target.exists()
            and _digest(target) != (document.digest if own else None)
        ):
            problem = (
                "was changed by another program since it was opened"
                if own
                else "exists already"
            )
            raise FileChanged(
                str(target), problem, "Overwrite it, or use another name."
            )
        with disk_errors(target):
            if own and document.foreign and target.exists():
                atomic_write(_free_name(target), target.read_bytes())
        text = json.dumps(self.data, indent=2, ensure_ascii=False) + "\n"
        content = text.encode()
        atomic_write(target, content)
        digest = hashlib.sha256(content).hexdigest()
        saved = _canonical(self.data)
        replaced = _Document({}, path=str(target)).draft
        with self._writing, suppress(OSError):
            # what a crash left of a file that is written over
            (self._drafts / replaced).unlink()
        self._become(
            _Document(
                self.data, target.name, str(target), saved, digest, aside=document.aside
            )
        )
        self._preferences.used(target)

    def restore(self, config: Path | None = None) -> None:
        """Go on where the last start ended: with what was not saved, else with the newest file.

        ``config``: go on with this file, changes not saved included. Raises ConfigError if it is no JSON object.
        """
        if config:
            return self.open(config)
        for draft in sorted(
            self._drafts.glob("*.json"),
            key=lambda file: file.stat().st_mtime,
            reverse=True,
        ):
            if (kept := self._kept(draft)) and kept.dirty:
                return self._go_on(kept)
        for recent in self._preferences.recent[:1]:
            with suppress(ConfigError):
                self.open(Path(recent))

    def keep(self) -> None:
        """Write what is not saved as a draft now; else that is done after a short pause."""
        with self._writing:
            document = self._document
            draft = self._drafts / document.draft
            try:
                if document.worth_keeping:
                    make_folder(self._drafts)
                    atomic_write(draft, json.dumps(asdict(document)))
                else:
                    with disk_errors(draft):
                        draft.unlink(missing_ok=True)
            except BlockrateError as error:
                self.warnings = (
                    *self.warnings,
                    f"a crash would lose what is not saved: {error}",
                )

    def _keep_soon(self) -> None:
        self._timer.cancel()
        # of its own thread: the program waits for it at its end
        self._timer = threading.Timer(_PAUSE, self.keep)
        self._timer.start()

    @staticmethod
    def _kept(draft: Path) -> _Document | None:
        """Return what a draft holds, or None where there is none that can be read."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            kept = _Document(**json.loads(draft.read_bytes()))
            return (
                kept
                if isinstance(kept.data, dict) and isinstance(kept.aside, dict)
                else None
            )
        return None

    def _go_on(self, kept: _Document) -> None:
        """Open a draft."""
        note = "changes that were not saved last time are here again"
        self.opened += 1
        self._become(replace(kept, notes=(*dict.fromkeys((*kept.notes, note)),)))

    def _become(self, document: _Document) -> None:
        """Make this the open config, check it, and tell everybody."""
        checked = check(document.data)
        before = self._document
        if (
            self._timer.is_alive()
            and not before.dirty
            and before.draft != document.draft
        ):
            self.keep()  # what was remembered, or forgotten, a moment ago
        self._document = document
        self.checked = checked
        self.data = document.data
        self.title = document.title
        self.path = Path(document.path) if document.path else None
        self.dirty = document.dirty
        self.config = checked.config
        self.plan = checked.plan
        self.problems = checked.problems
        self.warnings = (*document.notes, *checked.warnings)
        last = self.usable if document.path == before.path else TrainConfig()
        self.usable = checked.config or usable(document.data, checked.problems) or last
        self.revision += 1
        self._timer.cancel()
        if before.dirty and (before.draft != document.draft or not self.dirty):
            with self._writing, suppress(OSError):
                (self._drafts / before.draft).unlink()
        if document.worth_keeping:
            self._keep_soon()
        self.changed.emit()


class Draft:
    """Values of a window that are not in the config yet; everything else is the session's."""

    def __init__(self, session: Session, paths: Sequence[str]) -> None:
        self.changed: Event[[]] = Event()
        self._session = session
        self._paths = tuple(paths)
        self._before = {path: session.get(path) for path in paths}
        self._values: dict[str, Any] = {}
        self._removed: tuple[str, ...] = ()
        self._made_at = session.revision
        self._checked = session.checked

    @property
    def checked(self) -> Checked:
        """What the config would come to with these values."""
        if self._made_at != self._session.revision:
            self._checked = check(
                self._session._with_changes(self._values, self._removed).data
            )
            self._made_at = self._session.revision
        return self._checked

    def get(self, path: str) -> Any:
        """Return the value in the window, else the session's."""
        return self.checked.get(path)

    def set(self, values: Mapping[str, Any]) -> None:
        """Take values by path, as one change."""
        self._before = {path: self._session.get(path) for path in values} | self._before
        self._values = {**self._values, **copied(dict(values))}
        self._tell()

    def problem(self, path: str) -> str:
        """Return what would be wrong with a field, ``""`` if nothing."""
        return self.checked.problem(path)

    def reset(self) -> None:
        """Bring every path of the window to its default."""
        self._values = {}
        self._removed = self._paths
        self._tell()

    def changes(self) -> dict[str, Any]:
        """Return the values that differ from those when the window was opened, by path."""
        values = {path: self.get(path) for path in self._before}
        return {
            path: value
            for path, value in values.items()
            if not _same(value, self._before[path])
        }

    @property
    def dirty(self) -> bool:
        """Whether OK would change anything."""
        return bool(self.changes())

    @property
    def stale(self) -> bool:
        """Whether the session has changed one of these paths since the window was opened."""
        return any(
            not _same(self._session.get(path), value)
            for path, value in self._before.items()
        )

    def ok(self) -> None:
        """Write the values into the session, as one revision."""
        self._session.change(self._values, self._removed)

    def _tell(self) -> None:
        self._made_at = -1
        self.changed.emit()


def _same(one: Any, other: Any) -> bool:
    """Whether two values mean the same: 1 and 1.0 do, 1 and true do not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _canonical(data: Json) -> str:
    return json.dumps(data, sort_keys=True)


def _digest(path: Path) -> str:
    with suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""  # a folder, or no right to read it


def _free_name(path: Path) -> Path:
    names = (
        path.with_name(f"{path.stem}.before{f'-{number}' * (number > 1)}{path.suffix}")
        for number in count(1)
    )
    return next(name for name in names if not name.exists())
