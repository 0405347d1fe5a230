"""Folders named as sd-scripts names them, ``10_ohwx man``: the number is how often an epoch repeats each image."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from blockrate.config.parts import Concept
from blockrate.dataset.findings import Finding, Looked
from blockrate.dataset.folders import image_folders

# sd-scripts takes any number; 2024_holiday is a year
_NAME = re.compile(r"(\d{1,3})_.+")
_MOST_CONCEPTS = 20


def repeats_in_names(looked: Looked) -> Iterator[Finding]:
    """Yield what sd-scripts would repeat and this concept does not, with the concepts that do."""
    concept = looked.concept
    is_as_it_was = concept.balancing == 1.0 and concept.balancing_strategy == "REPEATS"
    if concept.type == "VALIDATION" or not is_as_it_was:
        return
    folders = list(dict.fromkeys(path.parent for path in looked.images))
    folders = folders or image_folders(concept)
    top = Path(concept.path)
    numbers = {folder: repeats_of(folder, top) for folder in folders}
    named = [folder for folder, number in numbers.items() if number is not None]
    if all(numbers[folder] == 1 for folder in named) and looked.images:
        return
    if not named:
        return
    times = " and ".join(str(numbers[folder]) for folder in named[:_MOST_CONCEPTS])
    problem = f"named as for sd-scripts, which would repeat their images {times} times"
    if looked.images:
        problem += "; here each comes once"
    if folders == [top]:
        cure = f"Set concepts.{looked.index}.balancing to {numbers[top]} to repeat them as often."
    else:
        lines = concepts_for(concept, numbers)
        cure = f"To repeat them as often, write in place of this concept: {lines}"
    yield looked.finding(
        "warning", "repeats", named, problem, cure, what="folders", total=len(folders)
    )


def repeats_of(folder: Path, top: Path) -> int | None:
    """Return the number in the name of a folder, or in that of the next one around it up to ``top``."""
    for one in (folder, *folder.parents):
        found = _NAME.fullmatch(one.absolute().name)
        if found:
            return int(found[1])
        if one == top:
            return None
    return None


def concepts_for(concept: Concept, numbers: dict[Path, int | None]) -> str:
    """Return the entries of ``concepts``, in JSON, that take the place of one: a folder each, with its repeats."""
    rest = concept.model_dump(
        exclude_defaults=True, exclude={"name", "include_subdirectories"}
    )
    rows = []
    for folder, number in list(numbers.items())[:_MOST_CONCEPTS]:
        times = 1 if number is None else number
        rows.append({**rest, "path": str(folder), "balancing": times})
    text = ", ".join(json.dumps(row, ensure_ascii=False) for row in rows)
    more = len(numbers) - len(rows)
    return f"{text} and {more} more like these." if more else text
