"""Which runs are compared. An address names them by ids that mean something here alone, never by a path."""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs

from blockrate.core.errors import WriteError
from blockrate.core.plain_text import visible
from blockrate.ui.page import Compared, Page
from blockrate.ui.preferences import Preferences

SCREEN = "Compare"
MOST = 4  # that the eye tells apart
_ADDRESS = "/compare"
_REMEMBERED = 60
_LONGEST = 200  # letters of what an address names


def compare_runs(page: Page, paths: Iterable[Path]) -> None:
    """Compare these runs, at most four, on the screen for it."""
    page.compared = Compared(tuple(dict.fromkeys(paths))[:MOST])
    _remember(page.preferences, page.compared.paths)
    page.compared_changed.emit()
    page.show_tab(SCREEN)


def compare_with_its_like(page: Page, run: Path) -> None:
    """Compare a run with the one that it was made after or that was made after it, else with the one that is shown."""
    jobs = page.watch.jobs.seen.jobs
    before = [Path(job.like) for job in jobs if job.like and Path(job.run) == run]
    after = [Path(job.run) for job in jobs if job.like and Path(job.like) == run]
    shown = [page.watch.run.path] if page.watch.run else []
    first = before[:1] or ([] if after else shown)
    compare_runs(page, [*first, run, *after])


def address_of(compared: Compared) -> str:
    """Return the address that brings these runs again."""
    ids = ",".join(_id(str(path)) for path in compared.paths)
    return f"{_ADDRESS}?runs={ids}" if ids else _ADDRESS


def compared_in(query: str, preferences: Preferences) -> Compared:
    """Return the runs that the query of an address names: those only that were compared here before."""
    named = parse_qs(query[:_LONGEST]).get("runs", [""])[0].split(",")
    ids = [name for name in dict.fromkeys(named) if name][:MOST]
    known = {_id(path): Path(path) for path in preferences.compared}
    paths = tuple(known[name] for name in ids if name in known)
    return Compared(paths, len(ids) - len(paths))


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return what runs are called beside each other: their folders, with the one around where that says more."""
    names = [path.name for path in paths]
    return [
        visible(_with_folder(path) if _says_little(path, names) else path.name)
        for path in paths
    ]


def _with_folder(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _says_little(path: Path, names: Sequence[str]) -> bool:
    # a run of a plan, in the folder of its rates
    return path.name.startswith("seed-") or names.count(path.name) > 1


def _id(path: str) -> str:
    return hashlib.sha256(path.encode(errors="replace")).hexdigest()[:12]


def _remember(preferences: Preferences, paths: Sequence[Path]) -> None:
    before = preferences.compared
    named = dict.fromkeys([*map(str, paths), *before])
    preferences.compared = list(named)[:_REMEMBERED]
    # a wish, not worth a failure; not every path can be written
    with suppress(WriteError, ValueError):
        if preferences.compared != before:
            preferences.save()
