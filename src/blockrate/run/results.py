"""What a run hands over: which file or folder is its own, and how what is in the way of one is kept."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blockrate.core.errors import WriteError
from blockrate.run.durable import (
    MANIFEST,
    atomic_write,
    make_folder,
    move_aside,
    sha256_of,
    temporary_beside,
    verify_folder,
)
from blockrate.run.events import Finished, Saved, events_of

if sys.platform != "win32":
    import fcntl

_PATIENCE = 60.0  # seconds; a run that was halted must not halt the others
_GLANCE = 0.05  # seconds
# that a run is known by; who saves each minute for two months has as many
_MOST = 100_000
_WEIGHTS = "diffusion_pytorch_model"  # diffusers' name
_SUFFIX = ".safetensors"


class Results:
    """The results of one run, as its events tell of them. ``told``: by path, what was in each."""

    def __init__(self, events_file: Path) -> None:
        self.told: dict[Path, set[str]] = {}
        for record in events_of(events_file, Saved, Finished):
            match record.event:
                case Saved(path=path, kind="export", sha256=sha256):
                    self.add(path, sha256)
                case Finished(outputs=outputs):
                    for output in outputs:
                        self.add(output, None)

    def add(self, path: Path | str, sha256: str | None) -> None:
        """Take note of a result. ``sha256``: None where an older event does not tell it."""
        known = self.told.setdefault(_absolute(path), set())
        if sha256:
            known.add(sha256)
        if len(self.told) > _MOST:
            # an older one is kept like anybody's, should it be in the way
            del self.told[next(iter(self.told))]

    def own(self, path: Path | str, *, contents: bool = True) -> bool:
        """Whether what is at ``path`` is a result of this run, and as the run has left it.

        Older runs did not tell what was in their files: one that they name counts as theirs.
        ``contents``: read every byte of a folder, not names and sizes only.
        """
        path = _absolute(path)
        if path not in self.told:
            return False
        found = fingerprint(path, contents=contents)
        known = self.told[path]
        return found in known if known else _is_result(path)


def fingerprint(path: Path, *, contents: bool = False) -> str | None:
    """Return the SHA-256 of a file, of an exported folder that of its manifest; None for anything else.

    ``contents``: of a folder, compare every byte with what the manifest says of it.
    """
    with suppress(OSError, ValueError):
        if path.is_file():
            return sha256_of(path)
        if path.is_dir() and not verify_folder(path, contents=contents):
            return None if foreign_entries(path) else sha256_of(path / MANIFEST)
    return None


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold what all runs of this computer ask for before they look at a folder's results and write their own.

    The kernel's lock of the folder itself, which leaves no file behind and dies with the process. Where the system or
    the disk has none, or another run keeps it for a minute, the work is done without.
    """
    descriptor = _opened(folder)
    try:
        if descriptor is not None:
            _wait_for(descriptor)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def make_way(path: Path, results: Results, say: Callable[[str], None]) -> None:
    """Move aside what is where a result is to be written, unless it is the run's own. Raises WriteError."""
    if not os.path.lexists(path) or results.own(path) or _is_empty_folder(path):
        return
    kept = move_aside(path)
    say(f"{path} was there and is not of this run: it is kept as {kept}")


def check_destination(
    destination: str, results: Results, *, folder: bool, probe: bool = False
) -> str:
    """Return what is to be told of what is at the destination, ``""`` if nothing.

    ``probe``: make the folder that it is in, and write there. Raises WriteError if no result could be written there,
    or would be put in the place of what no run has written.
    """
    path = Path(destination)
    _refuse_other_kind(path, folder=folder)
    if folder:
        _refuse_foreign_folder(path)
    elif path.suffix.lower() != _SUFFIX and _absolute(path) not in results.told:
        problem = "does not end in .safetensors, by which programs know such a file"
        raise _refusal(path, problem, f"to {destination + _SUFFIX}")
    _refuse_closed_folder(path.parent)
    if probe:
        _write_probe(path)
    if not os.path.lexists(path) or _is_empty_folder(path):
        return ""
    if results.own(path, contents=False):
        return ""
    return (
        f"there is a {path} already, which is not of this run: "
        "it is kept under the next free number when this run writes its own"
    )


def foreign_entries(folder: Path) -> list[str]:
    """Return the names of what no export wrote into ``folder``."""
    ours = ("config.json", MANIFEST, _WEIGHTS)
    names = sorted(entry.name for entry in folder.iterdir())
    return [name for name in names if not name.startswith(ours)]


def _refuse_other_kind(path: Path, *, folder: bool) -> None:
    if folder and path.is_file():
        problem = "is a file, and a fine-tune writes a folder"
        raise _refusal(path, problem, "to a new folder")
    if not folder and path.is_dir():
        raise _refusal(path, "is a folder", f"to a name that ends in {_SUFFIX}")


def _refuse_foreign_folder(path: Path) -> None:
    foreign = foreign_entries(path) if path.is_dir() else []
    if foreign:
        problem = f"holds more than a transformer ({foreign[0]})"
        raise _refusal(path, problem, "to a new folder: an export is the whole one")


def _refuse_closed_folder(folder: Path) -> None:
    """Refuse what can be seen to be no folder to write into; nothing is made."""
    there = folder.absolute()
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        problem = "is not a folder, so nothing can be written in it"
        raise _refusal(there, problem, "to a name in another folder")
    if not os.access(there, os.W_OK):
        raise _refusal(there, "cannot be written into", "to a name in another folder")


def _refusal(path: Path, problem: str, cure: str) -> WriteError:
    return WriteError(str(path), problem, f"Set output_model_destination {cure}.")


def _write_probe(path: Path) -> None:
    make_folder(path.parent)
    probe = temporary_beside(path)
    try:
        atomic_write(probe, b"")
    except WriteError as error:
        raise WriteError(str(path), error.problem, error.cure) from error
    probe.unlink()


def _is_result(path: Path) -> bool:
    """Whether something looks like what a run hands over."""
    with suppress(OSError, ValueError):
        return path.is_file() or (path / MANIFEST).is_file()
    return False


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _absolute(path: Path | str) -> Path:
    # without a look at links: a result is what stands under its name
    return Path(os.path.abspath(path))


def _opened(folder: Path) -> int | None:
    if sys.platform != "win32":
        with suppress(OSError):
            return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    return None


def _wait_for(descriptor: int) -> None:
    if sys.platform != "win32":
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_GLANCE)
            except OSError:
                return
