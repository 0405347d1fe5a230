"""What is found in the data of a run: in words, with examples, and with the cure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blockrate.config.parts import Concept
from blockrate.core.errors import FileError
from blockrate.core.plain_text import visible

Level = Literal["error", "warning", "note"]
_EXAMPLES = 3
_MOST_NAMES = 20


@dataclass(frozen=True)
class Finding:
    """Something in the data that is learned otherwise than one may think, or not at all.

    ``level``: with an ``error`` no run starts. ``kind``: a name for programs. ``concept``: the concept's index, null
    for all of them. ``count`` of ``total``: of images mostly. ``examples``: at most three names; of images that lack a
    reference or a mask, twenty.
    """

    level: Level
    kind: str
    concept: int | None
    count: int
    total: int
    problem: str
    examples: tuple[str, ...]
    cure: str


@dataclass(frozen=True)
class Looked:
    """A concept, its index in the config, its images, and the other files in its folder."""

    index: int
    concept: Concept
    images: tuple[Path, ...]
    others: tuple[Path, ...] = ()

    def finding(
        self,
        level: Level,
        kind: str,
        found: Sequence[Path],
        problem: str,
        cure: str,
        *,
        what: str = "images",
        total: int | None = None,
        most_names: int = _EXAMPLES,
    ) -> Finding:
        """Return a finding about some of the concept's images, or of ``total`` others, called ``what``."""
        of = len(self.images) if total is None else total
        return Finding(
            level,
            kind,
            self.index,
            len(found),
            of,
            f"{len(found):,} of {of:,} {what}: {problem}",
            tuple(self.shown(path) for path in found[:most_names]),
            cure,
        )

    def bad(self, kind: str, errors: Sequence[FileError]) -> Iterator[Finding]:
        """Yield the finding that files cannot be used, if any cannot."""
        if errors:
            paths = list(dict.fromkeys(Path(error.where) for error in errors))
            problem = f"cannot be used; the first {errors[0].problem}"
            cure = "Repair or remove them."
            what = kind.removeprefix("bad ")
            yield self.finding("error", kind, paths, problem, cure, what=what)

    def shown(self, path: Path) -> str:
        """Return a file's name within the folder, or the folder's."""
        top = Path(self.concept.path)
        if path == top or not path.is_relative_to(top):
            return visible(path.absolute().name)
        return visible(path.relative_to(top).as_posix())


def in_words(finding: Finding) -> str:
    """Return a finding as a line: where, what, examples, cure."""
    where = "" if finding.concept is None else f"concepts.{finding.concept}: "
    examples = f" ({', '.join(finding.examples)})" if finding.examples else ""
    return f"{where}{finding.problem}{examples}. {finding.cure}".rstrip()


def all_bad(errors: Iterable[FileError], total: int) -> FileError:
    """Return one error that lists what is wrong with each of ``total`` images and captions."""
    # a caption file that several images share is bad once
    lines = list(
        dict.fromkeys(
            f"\n  {visible(f'{error.where}: {error.problem}')}" for error in errors
        )
    )
    problem = f"{len(lines)} bad files among {total} images and their captions"
    if len(lines) > _MOST_NAMES:
        lines[_MOST_NAMES:] = [f"\n  and {len(lines) - _MOST_NAMES} more"]
    return FileError("concepts", problem, f"Repair or remove:{''.join(lines)}")
