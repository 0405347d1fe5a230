"""What a file of weights holds, told by the names of its tensors; the rows are in ``file_kinds.json``."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

_TABLES: dict[str, Any] = json.loads(
    Path(__file__).with_suffix(".json").read_text("utf-8")
)
Table = Literal["lora_formats", "other_loras", "kin_loras", "outside", "others"]


def kind_of(names: Collection[str], among: Table) -> str:
    """Return a LoRA file's format, whose LoRA it is, or what another file is: ``kohya``; ``Wan``; ``a VAE``.

    Empty when no name tells. The file explains its tables.
    """
    # in one text, a line each: a file may bring thousands of names
    text = "\n".join(name.replace("\n", " ") for name in names)
    for kind, pattern in _TABLES[among]:
        if re.search(pattern, text, re.MULTILINE):
            return str(kind)
    return ""
