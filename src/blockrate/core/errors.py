"""What can go wrong by the user's doing, each with its exit code.

Source of the codes: sysexits.h where one fits (65, 71, 73, 75), else our own (74, 76).
"""

import errno
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from blockrate.core.plain_text import visible

# How else to go on: with the run in the folder set aside; with fresh moments for what is new
# to it, or for all; with the rate's schedule stretched; without what is not supported.
WayOn = Literal["fresh", "reset_new", "reset_all", "extend", "ignore_unsupported"]


class BlockrateError(ValueError):
    """A sentence for the user: ``where: what is wrong. what to do``; ``where`` may be empty.

    ``ways_on``: how else to go on. The text does not name them: a button in the app is an
    option on the command line, so that each has words of its own, see ``in_words``.
    ``parts``: errors that are told together, each with its own ways on.
    ``choices``: where only the user knows, the values of the field that are an answer.
    """

    exit_code = 2

    def __init__(
        self,
        where: str,
        problem: str,
        cure: str = "",
        *,
        ways_on: Sequence[WayOn] = (),
        parts: Sequence["BlockrateError"] = (),
        choices: Sequence[str] = (),
    ) -> None:
        self.where = where
        self.problem = problem.rstrip(".")
        self.cure = cure
        self.ways_on = tuple(ways_on)
        self.parts = tuple(parts)
        self.choices = tuple(choices)
        super().__init__(in_words(self, {}))


class ConfigError(BlockrateError):
    """A setting is wrong. ``where`` is the config's key."""

    exit_code = 2


class FileError(BlockrateError):
    """A data or model file cannot be used. ``where`` is the file or folder."""

    exit_code = 65


class OutOfMemoryError(BlockrateError):
    """The device or the machine has no memory left."""

    exit_code = 71


class WriteError(BlockrateError):
    """Something cannot be written: disk full, read-only, folder gone."""

    exit_code = 73


class NoCheckpointError(BlockrateError):
    """There are checkpoints, and none is whole."""

    exit_code = 74


class NotANumberError(BlockrateError):
    """Loss or gradients stayed non-finite."""

    exit_code = 76


def is_full_memory(error: BaseException) -> bool:
    """Whether there was too little memory. By names: torch may not have been imported yet."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if _is_of_a_file(error):
        full = getattr(error, "errno", None) == errno.ENOMEM
        small = getattr(error, "winerror", None) == _PAGING_FILE_TOO_SMALL
        return full or small or bool(_PAGING_FILE.search(str(error)))
    # a plain RuntimeError, or torch's AcceleratorError, which is one
    return isinstance(error, RuntimeError) and bool(_FULL.search(str(error)))


def is_full_card(error: BaseException) -> bool:
    """Whether it was the memory of a graphics card, or the main memory that such a card reads."""
    is_ours = isinstance(error, MemoryError) or _is_of_a_file(error)
    return is_full_memory(error) and not (is_ours or _MAIN in str(error))


def _is_of_a_file(error: BaseException) -> bool:
    """Whether the system, or safetensors for it, tells of a file that it was to map into memory."""
    return isinstance(error, OSError) or type(error).__name__ == "SafetensorError"


# Windows promises memory to files and to torch's libraries that it has neither as RAM nor in its paging file
_PAGING_FILE_TOO_SMALL = 1455
_PAGING_FILE = re.compile(rf"(os error|WinError) {_PAGING_FILE_TOO_SMALL}\b")
# What torch calls main memory ...
_MAIN = "DefaultCPUAllocator"
# ... and how else it tells of full memory: cuBLAS and cuDNN, or AMD's like them, for their workspace and for what they
# begin with; CUDA and HIP themselves for pinned memory and inside bitsandbytes; Apple's GPU in a sentence.
_FULL = re.compile(
    rf"{_MAIN}|(CU|HIP)(BLAS(LT)?|DNN|SPARSE|SOLVER)_STATUS_ALLOC_FAILED|miopenStatusAllocFailed"
    r"|(CU|HIP)BLAS_STATUS_NOT_INITIALIZED when calling \W?(cu|hip)blas(Lt)?Create"
    "|cudaErrorMemoryAllocation|hipErrorOutOfMemory|out of memory",
    re.IGNORECASE,
)


def in_words(error: BlockrateError, words: Mapping[WayOn, str]) -> str:
    """Return what an error says, with its ways on in the words of a front end."""
    text = f"{error.problem}. {error.cure}".rstrip()
    if error.where:
        text = f"{visible(error.where)}: {text}"
    lines = [with_ways_on(visible(text, lines="indented"), error.ways_on, words)]
    for part in error.parts:
        lines.append(f"  {in_words(part, words)}")
    return "\n".join(lines)


def with_ways_on(
    text: str, ways_on: Iterable[WayOn], words: Mapping[WayOn, str]
) -> str:
    """Return a text and how else to go on; a way without words is not told."""
    told = [words[way] for way in ways_on if way in words]
    return f"{text} Or {'; or '.join(told)}." if told else text
