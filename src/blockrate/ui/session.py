"""The one open config of the app: all pages show it, every change is checked, and what is not saved is not lost."""

import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from nicegui import Event

from blockrate.config.base_model import model_spec, text_encoders
from blockrate.config.plan import Plan
from blockrate.config.presets import named, read_named
from blockrate.config.reading import Json, nested_too_deeply, read_object
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.core.plain_files import real_path
from blockrate.models.families import DEFAULT_FAMILY, encoder_names
from blockrate.run.durable import atomic_write, disk_errors
from blockrate.run.home import PRIVATE, private_folder, state_folder
from blockrate.run.places import Source
from blockrate.ui.checked import Problem, check, copied, usable
from blockrate.ui.document import (
    Document,
    canonical_json,
    draft_name,
    draft_text,
    make_document,
    new_document,
    read_draft,
    with_changes,
    write_document,
)
from blockrate.ui.preferences import Preferences, load_preferences

_PAUSE = 0.5  # seconds without a change before the draft is written


class Session:
    """The open config and what is known of it. Attributes are to be read; methods change them and emit ``changed``.

    ``revision``: counts the changes. ``opened``: counts what was opened. ``checked``: what the config comes to.
    ``usable``: the config; while settings are wrong, without them. ``spec``: of its model, while that is
    not to be had of the last one; ``encoders``: what that one's text encoders are.
    """

    def __init__(
        self, preferences: Preferences | None = None, *, keeps: bool = True
    ) -> None:
        """``keeps``: what is not saved is kept as a draft."""
        self._keeps = keeps
        self.changed: Event[[]] = Event()
        self.revision = 0
        self.opened = 0
        self.usable = TrainConfig()
        self._preferences = preferences or load_preferences()
        self._drafts = state_folder() / "drafts"
        self._draft_problem = ""  # why it could not be written
        # started at the first change
        self._timer = threading.Timer(_PAUSE, self.keep)
        self._writing = threading.Lock()
        self.spec = DEFAULT_FAMILY.spec
        self.encoders = encoder_names(DEFAULT_FAMILY)
        self._document = new_document()
        self._set_document(self._document)

    @property
    def data(self) -> Json:
        """The config as the user wrote it, unknown keys and wrong values too."""
        return self._document.data

    @property
    def title(self) -> str:
        """What the config is called."""
        return self._document.title

    @property
    def path(self) -> Path | None:
        """The file it came from, or was saved to; None while it has none."""
        return self._document.path

    @property
    def source(self) -> Source:
        """Where it comes from, by which its run is found."""
        is_named = self.path is None and self.title in named()
        return Source(self.path, self.title if is_named else "")

    @property
    def dirty(self) -> bool:
        """Whether there are changes that are not saved."""
        return self._document.dirty

    @property
    def config(self) -> TrainConfig | None:
        """The config for a run, None while settings are wrong."""
        return self.checked.config

    @property
    def plan(self) -> Plan | None:
        """What a run would train, None while settings are wrong."""
        return self.checked.plan

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All that blocks a start."""
        return self.checked.problems

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be told of the config and its file."""
        warnings = (*self._document.notes, *self.checked.warnings)
        if self._draft_problem:
            return (*warnings, self._draft_problem)
        return warnings

    def get(self, path: str) -> Any:
        """Return a copy of the user's value, even if it is wrong, else the default."""
        return self.checked.get(path)

    def problem(self, path: str) -> str:
        """Return what is wrong with a field or inside it, ``""`` if nothing."""
        return self.checked.problem(path)

    def set(self, values: Mapping[str, Any]) -> None:
        """Write values by path as one revision; a path may lead into lists. What is as before stays untouched."""
        self.change(values, ())

    def remove(self, *paths: str) -> None:
        """Bring settings back to their defaults, drop unknown keys, take entries out of lists."""
        self.change({}, paths)

    def change(self, values: Mapping[str, Any], removed: Iterable[str]) -> None:
        """Remove and set as one revision."""
        document = self.with_changes(values, removed)
        if canonical_json(document.data) != canonical_json(self.data):
            self._set_document(document)

    def put_back(self, data: Json) -> None:
        """Make the config what it was before a change."""
        self._set_document(replace(self._document, data=copied(data)))

    def with_changes(
        self, values: Mapping[str, Any], removed: Iterable[str]
    ) -> Document:
        """Return what ``change`` would make of the config. Raises ConfigError for an entry that no list has."""
        return with_changes(self._document, self.checked, values, removed)

    def remember(self, name: str, value: Any) -> None:
        """Keep a thing that belongs to the open config and stands in no file; None forgets it."""
        if value == self.remembered(name):
            return  # nor is the draft touched that another unnamed config has left
        remembered = {**self._document.remembered, name: value}
        self._document = replace(self._document, remembered=remembered)
        self._keep_soon()

    def remembered(self, name: str) -> Any:
        """Return what was kept under a name, or None."""
        return self._document.remembered.get(name)

    def recheck(self) -> None:
        """Check again: files that the config names may have come or gone."""
        self._set_document(self._document)

    def new(self) -> None:
        """Open a new config: the first choice of a model, every other setting at its default."""
        self.opened += 1
        self._set_document(new_document())

    def open(self, path: Path) -> None:
        """Open a file of blockrate or OneTrainer, right or wrong, with what a crash left unsaved of it.

        Raises ConfigError only if it is not a JSON object.
        """
        path = real_path(path)
        draft = None
        if path != self.path:
            draft = read_draft(self._drafts / draft_name(path))
        if draft and draft.dirty:
            self._open_draft(draft)
        else:
            self.open_data(read_object(path), path=path, title=path.name)
            remembered = draft.remembered if draft else {}
            self._document = replace(self._document, remembered=remembered)
        self._preferences.used(path)

    def open_named(self, name: str) -> None:
        """Open a copy of a preset or an example. Raises ConfigError if there is none of this name."""
        self.open_data(read_named(name), path=None, title=name)

    def open_data(self, data: Json, *, path: Path | None, title: str) -> None:
        """Open something else; older names become today's. Raises ConfigError for what is nested too deeply."""
        try:
            document = make_document(data, path=path, title=title)
            self.opened += 1
            self._set_document(document)
        except RecursionError as error:
            raise nested_too_deeply(str(path or title)) from error

    def save(self, path: Path | None = None, *, overwrite: bool = False) -> None:
        """Write the config to its file, or to another one that is then the open one.

        Raises FileChanged if a file is there that is not the one that was opened, unless ``overwrite``; WriteError.
        """
        target = path or self.path
        if not target:
            raise ConfigError(self.title, "has no file yet", "Choose one with Save as.")
        target = real_path(target)
        document = write_document(self._document, target, overwrite=overwrite)
        # what a crash left of a file that is written over
        self._drop_draft(document.draft_name)
        self._set_document(document)
        self._preferences.used(target)

    def restore(self, config: Path | None = None) -> None:
        """Go on where the last start ended: with what was not saved, else with the newest file.

        ``config``: go on with this file, changes not saved included. Raises ConfigError if it is not a JSON object.
        """
        if config:
            return self.open(config)
        drafts = list(self._drafts.glob("*.json"))
        drafts.sort(key=lambda file: file.stat().st_mtime, reverse=True)
        for file in drafts:
            draft = read_draft(file)
            if draft and draft.dirty:
                return self._open_draft(draft)
        for recent in self._preferences.recent[:1]:
            with suppress(ConfigError):
                self.open(Path(recent))

    def _open_draft(self, draft: Document) -> None:
        note = "changes that were not saved last time are here again"
        self.opened += 1
        notes = tuple(dict.fromkeys((*draft.notes, note)))
        self._set_document(replace(draft, notes=notes))

    def keep(self) -> None:
        """Write what is not saved as a draft now; else that is done after a short pause."""
        if not self._keeps:
            return
        with self._writing:
            document = self._document
            draft = self._drafts / document.draft_name
            try:
                if document.worth_keeping:
                    private_folder(self._drafts.name)
                    atomic_write(draft, draft_text(document), mode=PRIVATE)
                else:
                    with disk_errors(draft):
                        draft.unlink(missing_ok=True)
            except BlockrateError as error:
                problem = f"a crash would lose what is not saved: {error}"
                self._draft_problem = problem

    def _keep_soon(self) -> None:
        self._timer.cancel()
        if not self._keeps:
            return
        # of its own thread: the program waits for it at its end
        self._timer = threading.Timer(_PAUSE, self.keep)
        self._timer.start()

    def _drop_draft(self, name: str) -> None:
        if not self._keeps:
            return
        with self._writing, suppress(OSError):
            (self._drafts / name).unlink()

    def _set_document(self, document: Document) -> None:
        """Make this the open config, check it, and tell everybody."""
        checked = check(document.data)
        before = self._document
        is_other = document.draft_name != before.draft_name
        if is_other and not before.dirty and self._timer.is_alive():
            self.keep()  # what was remembered, or forgotten, a moment ago
        self._document = document
        self.checked = checked
        last = self.usable if document.path == before.path else TrainConfig()
        self.usable = checked.config or usable(document.data) or last
        self._look_at_the_model()
        self._draft_problem = ""
        self.revision += 1
        self._timer.cancel()
        if before.dirty and (is_other or not document.dirty):
            self._drop_draft(before.draft_name)
        if document.worth_keeping:
            self._keep_soon()
        self.changed.emit()

    def _look_at_the_model(self) -> None:
        with suppress(BlockrateError):
            self.spec = model_spec(self.usable)
            self.encoders = text_encoders(self.usable, self.spec)
