"""Whether the data folders of a run are as they were, seen without opening a file."""

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig

_MOST_FILES = 200_000
Row = tuple[str, int, int]


def data_state(config: TrainConfig) -> str:
    """Return a hash of the names, sizes and times of all files that a config's concepts may read.

    ``""`` where that cannot be told: a folder is not there, or holds too much. Another hash does not mean other
    images: the engine looks into them.
    """
    rows: list[list[Row]] = []
    try:
        for concept in config.concepts:
            if concept.enabled:
                rows.append(sorted(islice(_rows(concept), _MOST_FILES)))
    except (OSError, ValueError):
        return ""
    if not rows or any(len(files) == _MOST_FILES for files in rows):
        return ""
    text = json.dumps(rows).encode(errors="surrogatepass")
    return hashlib.sha256(text).hexdigest()


def _rows(concept: Concept) -> Iterator[Row]:
    for path in _files(concept):
        facts = path.stat()
        yield str(path), facts.st_size, facts.st_mtime_ns


def _files(concept: Concept) -> Iterator[Path]:
    if concept.text.prompt_source == "concept":
        yield Path(concept.text.prompt_path)
    for folder, inner, names in os.walk(concept.path, onerror=_refuse):
        yield from (Path(folder, name) for name in names if not name.startswith("."))
        inner[:] = [name for name in inner if not name.startswith(".")]
        if not concept.include_subdirectories:
            return


def _refuse(error: OSError) -> None:
    raise error
