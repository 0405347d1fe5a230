"""Where the jobs of a queue train and write: in places that no other one has."""

import os
from collections.abc import Collection, Mapping
from itertools import count
from pathlib import Path

from blockrate.core.errors import ConfigError
from blockrate.run.durable import numbered


def refuse_taken(
    places: Mapping[str, str], taken: Mapping[str, str], cure: str = ""
) -> None:
    """Raise ConfigError for a place that an unfinished job has, with the next one that is free as a choice.

    ``places``: by setting, as they are written there. ``taken``: the names of jobs by their absolute paths.
    """
    for field, path in places.items():
        name = taken.get(str(Path(path).absolute()))
        if name is not None:
            problem = f"the job {name} in the queue writes to {path} too"
            free = str(free_beside(Path(path), taken))
            cure = cure or f"Choose another one: {free} is free."
            raise ConfigError(field, problem, cure, choices=[free])


def free_beside(path: Path, taken: Collection[str]) -> Path:
    """Return a path with the first number, from 2, that nothing and nobody has."""
    names = (numbered(path, number) for number in count(2))
    return next(
        name
        for name in names
        if str(name.absolute()) not in taken and not os.path.lexists(name)
    )
