"""A tokenizer from its folder, and whether it belongs to its text encoder."""

from pathlib import Path
from typing import Any

from blockrate.core.errors import FileError
from blockrate.engine.models.from_folder import first_line

_FEWEST = 0.9  # of an encoder's rows: a few are spare, T5's last 28


def load_tokenizer(tokenizer_class: Any, folder: Path, encoder: Any) -> Any:
    """Return a tokenizer of transformers' ``tokenizer_class``, which asks no hub for what a folder lacks.

    Raises FileError for one that is damaged or knows other words than its ``encoder``.
    """
    cure = "Name or download the tokenizer that belongs to the text encoder."
    try:
        tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of libraries that read several forms of files
        problem = f"holds no tokenizer that can be read ({first_line(error)})"
        raise FileError(str(folder), problem, cure) from error
    rows = encoder.get_input_embeddings().weight.shape[0]
    if not _FEWEST * rows <= len(tokenizer) <= rows:
        problem = f"knows {len(tokenizer):,} tokens, and its text encoder {rows:,}"
        raise FileError(str(folder), problem, cure)
    return tokenizer
