"""What a window shows before OK: values that are not in the config yet, and what it would come to with them."""

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import Event

from blockrate.ui.checked import Checked, check, copied
from blockrate.ui.document import same_value
from blockrate.ui.session import Session


class WindowDraft:
    """Values of a window that are not in the config yet; everything else is the session's."""

    def __init__(self, session: Session, paths: Sequence[str]) -> None:
        self.changed: Event[[]] = Event()
        self._session = session
        self._paths = tuple(paths)
        self._before = {path: session.get(path) for path in paths}
        self._values: dict[str, Any] = {}
        self._removed: tuple[str, ...] = ()
        self._checked = session.checked
        self._checked_revision: int | None = session.revision

    @property
    def checked(self) -> Checked:
        """What the config would come to with these values."""
        if self._checked_revision != self._session.revision:
            document = self._session.with_changes(self._values, self._removed)
            self._checked = check(document.data)
            self._checked_revision = self._session.revision
        return self._checked

    def get(self, path: str) -> Any:
        """Return the value in the window, else the session's."""
        return self.checked.get(path)

    def problem(self, path: str) -> str:
        """Return what would be wrong with a field, ``""`` if nothing."""
        return self.checked.problem(path)

    def set(self, values: Mapping[str, Any]) -> None:
        """Take values by path, as one change."""
        self._before = {path: self._session.get(path) for path in values} | self._before
        self._values = {**self._values, **copied(dict(values))}
        self._report_change()

    def reset(self) -> None:
        """Bring every path of the window to its default."""
        self._values = {}
        self._removed = self._paths
        self._report_change()

    def changes(self) -> dict[str, Any]:
        """Return the values that differ from those when the window was opened, by path."""
        changes = {}
        for path, before in self._before.items():
            value = self.get(path)
            if not same_value(value, before):
                changes[path] = value
        return changes

    @property
    def dirty(self) -> bool:
        """Whether OK would change anything."""
        return bool(self.changes())

    @property
    def stale(self) -> bool:
        """Whether the session has changed one of these paths since the window was opened."""
        return any(
            not same_value(self._session.get(path), before)
            for path, before in self._before.items()
        )

    def ok(self) -> None:
        """Write the values into the session, as one revision."""
        self._session.change(self._values, self._removed)

    def forget(self) -> None:
        """Keep nothing: nothing of it is kept elsewhere."""

    def _report_change(self) -> None:
        self._checked_revision = None
        self.changed.emit()
