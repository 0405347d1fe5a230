"""How many tokens a text has, by the file of a model's own tokenizer; without torch, and nothing is downloaded."""

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

_FILE = "tokenizer.json"
_LARGEST = 2**26  # bytes; that of Qwen has 11 million


def count_tokens(folder: Path, texts: Sequence[str]) -> list[int] | None:
    """Return how many tokens each text has, those that every text gets at its ends included.

    ``folder``: of the tokenizer. None where it holds no ``tokenizer.json`` that can be read. Slow: for threads.
    """
    file = folder / _FILE
    # a library that reads it raises what it likes
    with suppress(Exception):
        facts = file.stat()
        if file.is_file() and facts.st_size <= _LARGEST:
            tokenizer = _tokenizer(file, facts.st_mtime_ns)
            return [len(tokenizer.encode(text).ids) for text in texts]
    return None


@lru_cache(maxsize=2)
def _tokenizer(file: Path, modified: int) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    # or none would be longer than what is kept of it
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
