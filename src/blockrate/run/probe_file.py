"""A measurement on disk: what was asked for, and what was found."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeGuard

from blockrate.core.advice import Probe
from blockrate.core.errors import FileError
from blockrate.run.folder import RunFolder
from blockrate.run.typed_json import kind_of, read_object

VERSION = 1
BATCHES = 16
# for four groups of two halves
EVERY = 8
MOST_BATCHES = 64
_KIND = kind_of(Probe)


@dataclass(frozen=True)
class Asked:
    """What one start of a probe was asked for. ``data``: a hash of the names, sizes and times of all data files."""

    batches: int = BATCHES
    data: str = ""


def asked_of(run: RunFolder) -> Asked:
    """Return what the last start of a probe was asked for; of what was changed by hand the usual."""
    options = run.options()
    batches = options.get("batches")
    data = options.get("data")
    return Asked(
        batches if is_possible(batches) else BATCHES,
        data if isinstance(data, str) else "",
    )


def is_possible(batches: object) -> TypeGuard[int]:
    """Whether a probe can be of so many batches: a multiple of 8, from 8 to 64."""
    if not isinstance(batches, int) or isinstance(batches, bool):
        return False
    return EVERY <= batches <= MOST_BATCHES and batches % EVERY == 0


def probe_json(found: Probe, asked: Asked) -> str:
    """Return a measurement as its file holds it."""
    whole = replace(found, version=VERSION, batches=asked.batches, data=asked.data)
    return json.dumps(asdict(whole), indent=1, allow_nan=False) + "\n"


def read_probe(file: Path) -> Probe:
    """Return the measurement in a file. Raises FileError for one that is not there, or cannot be used."""
    try:
        row = read_object(file)
        found: Probe = _KIND.read(row)
    except OSError as error:
        raise FileError(str(file), "cannot be read", "Measure first.") from error
    except (ValueError, TypeError, LookupError) as error:
        raise FileError(
            str(file), "does not hold a measurement", "Measure anew."
        ) from error
    if found.version != VERSION:
        problem = f"holds a measurement of version {found.version}, not {VERSION}"
        raise FileError(str(file), problem, "Measure anew.")
    return found
