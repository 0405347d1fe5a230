"""A config that is open, with what must be known of its file: read, changed, written and kept as a draft."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from blockrate.config.files import LISTS
from blockrate.config.gallery import first_config
from blockrate.config.onetrainer import migrate, migrate_lists
from blockrate.config.onetrainer_absent import fill_absent
from blockrate.config.onetrainer_gpus import read_many_gpus
from blockrate.config.onetrainer_sections import foreign_names
from blockrate.config.paths import drop, last_first, put
from blockrate.config.reading import LARGEST, Json
from blockrate.config.unsupported import listed, take_idle
from blockrate.core.errors import ConfigError
from blockrate.core.plain_files import read_plain
from blockrate.run.durable import atomic_write, disk_errors
from blockrate.ui.checked import Checked, copied


class FileChanged(ConfigError):  # noqa: N818 (what happened, told as a question)
    """The file to be saved is not the one that was opened; saving would lose what another program wrote."""


NO_TITLE = "New config"


@dataclass(frozen=True)
class Document:
    """A config as it is open, saved or not.

    ``saved``: the data when opened or saved, as one text. ``digest``: of the file then.
    ``foreign``: a file of OneTrainer or of older names, copied before it is written.
    ``remembered``: what pages know of it that stands in no config.
    """

    data: Json
    title: str = NO_TITLE
    path: Path | None = None
    saved: str = "{}"
    digest: str = ""
    foreign: bool = False
    notes: tuple[str, ...] = ()
    remembered: Json = field(default_factory=dict)

    @cached_property
    def dirty(self) -> bool:
        """Whether the data differ from those of the file."""
        return canonical_json(self.data) != self.saved

    @property
    def worth_keeping(self) -> bool:
        """Whether a crash would lose anything that is opened again."""
        remembers = any(value is not None for value in self.remembered.values())
        return self.dirty or (self.path is not None and remembers)

    @property
    def draft_name(self) -> str:
        """The name of the file that keeps it until it is saved."""
        return draft_name(self.path)


def new_document() -> Document:
    """Return a new config: the first choice of a model, with what suits it."""
    data = first_config()
    return Document(data, saved=canonical_json(data))


def draft_name(path: Path | None) -> str:
    """The name of the file that keeps what is not saved of a config at ``path``."""
    if path is None:
        return "unnamed.json"
    name = str(path).encode(errors="replace")
    return f"{hashlib.sha256(name).hexdigest()[:16]}.json"


def make_document(data: Json, *, path: Path | None, title: str) -> Document:
    """Return what was read from a file as a document; older names become today's."""
    migrated = copied(data)
    notes = migrate(migrated)
    migrate_lists(migrated)
    is_older = canonical_json(migrated) != canonical_json(data)
    if is_older:
        notes += _settle(migrated)
        notes.append(_note_on_older_names(data, migrated))
    of_onetrainer = "__version" in data or not foreign_names().isdisjoint(data)
    # of today's form: as it stands, with its version and in its order
    kept = migrated if is_older else copied(data)
    return Document(
        kept,
        title,
        path,
        saved=canonical_json(kept),
        digest=_digest(path) if path else "",
        foreign=is_older or of_onetrainer,
        notes=tuple(notes),
    )


def _settle(migrated: Json) -> list[str]:
    """Take out the version, and write down what it meant; return what to tell."""
    idle = take_idle(migrated)
    notes = fill_absent(migrated)
    gpus = read_many_gpus(migrated)
    notes += gpus.notes
    if idle:
        names = listed(idle)
        notes.append(
            f"settings that blockrate does not know, and that set nothing: {names}"
        )
    # without it what cannot be read as it is meant there would be read as it is meant here
    if not gpus.errors:
        migrated.pop("__version", None)
    return notes


def _note_on_older_names(before: Json, migrated: Json) -> str:
    gone = [key for key in before if key not in migrated and key != "__version"]
    note = "the file is of an older form and read as today's"
    return f"{note}: {', '.join(gone)}" if gone else note


def with_changes(
    document: Document,
    checked: Checked,
    values: Mapping[str, Any],
    removed: Iterable[str],
) -> Document:
    """Return a document of which paths were removed, then values set.

    ``checked``: what it comes to as it is. Raises ConfigError for an entry that no list has.
    """
    data = copied(document.data)
    notes = list(document.notes)
    removed = list(removed)
    for path in last_first(removed):
        notes += _take_list_in(data, path, checked)
        drop(data, path)
    for path, value in values.items():
        if removed or not same_value(checked.get(path), value):
            notes += _take_list_in(data, path, checked)
            put(data, path, copied(value), replace=True)
    return replace(document, data=data, notes=tuple(dict.fromkeys(notes)))


def _take_list_in(data: Json, path: str, checked: Checked) -> list[str]:
    """Before a list is edited that lies in a file of its own, put it into ``data``; return what to tell."""
    key = path.partition(".")[0]
    if key not in LISTS:
        return []
    file_setting = LISTS[key].setting
    file = data.pop(file_setting, "")
    if not file:
        return []
    data[key] = copied(checked.complete.get(key, []))
    return [
        f"{file_setting}: {file} is not used any more, its {key} are in this config now"
    ]


def write_document(document: Document, target: Path, *, overwrite: bool) -> Document:
    """Write a document to a file, and return it as the document of that file.

    Raises FileChanged if a file is there that is not the one that was opened, unless
    ``overwrite``; WriteError.
    """
    own = target == document.path
    if not overwrite:
        _check_unchanged(target, document.digest if own else None)
    with disk_errors(target):
        if own and document.foreign and target.exists():
            atomic_write(_name_of_copy(target), target.read_bytes())
    content = json.dumps(document.data, indent=2, ensure_ascii=False) + "\n"
    atomic_write(target, content.encode())
    return Document(
        document.data,
        target.name,
        target,
        saved=canonical_json(document.data),
        digest=hashlib.sha256(content.encode()).hexdigest(),
        remembered=document.remembered,
    )


def _check_unchanged(target: Path, digest: str | None) -> None:
    """Raise FileChanged unless there is no file, or the one that was opened. ``digest``: of that, None: of another."""
    if not target.exists() or _digest(target) == digest:
        return
    problem = "was changed by another program since it was opened"
    if digest is None:
        problem = "exists already"
    raise FileChanged(str(target), problem, "Overwrite it, or use another name.")


def _name_of_copy(path: Path) -> Path:
    """A name beside a file that nothing has."""
    copy = path.with_name(f"{path.stem}.before{path.suffix}")
    numbers = count(2)
    while copy.exists():
        copy = path.with_name(f"{path.stem}.before-{next(numbers)}{path.suffix}")
    return copy


def draft_text(document: Document) -> str:
    """Return a document as the text of a draft. Its names stay: older drafts are read."""
    return json.dumps(
        {
            "data": document.data,
            "title": document.title,
            "path": str(document.path or ""),
            "saved": document.saved,
            "digest": document.digest,
            "foreign": document.foreign,
            "notes": document.notes,
            "aside": document.remembered,
        }
    )


def read_draft(file: Path) -> Document | None:
    """Return what a draft holds, or None where there is none that can be read."""
    with suppress(OSError, ValueError, TypeError, AttributeError, LookupError):
        values = json.loads(file.read_bytes())
        path = values.pop("path")
        document = Document(
            path=Path(path) if path else None,
            notes=tuple(values.pop("notes")),
            remembered=values.pop("aside"),
            **values,
        )
        if isinstance(document.data, dict) and isinstance(document.remembered, dict):
            return document
    return None


def same_value(one: Any, other: Any) -> bool:
    """Whether two values mean the same: 1 and 1.0 do, 1 and true do not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def canonical_json(data: Json) -> str:
    """Return data as a text that is the same whatever the order of their names."""
    return json.dumps(data, sort_keys=True)


def _digest(path: Path) -> str:
    with suppress(OSError):
        return hashlib.sha256(read_plain(path, LARGEST)).hexdigest()
    return ""  # no file that could be a config, or no right to read it
