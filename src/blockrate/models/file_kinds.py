"""What a file of weights holds, told by the names of its tensors; the rows are in ``file_kinds.json``."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

_ROWS: dict[str, list[tuple[str, str]]] = json.loads(
    Path(__file__).with_suffix(".json").read_text("utf-8")
)


def kind_of(names: Collection[str], among: Literal["lora_formats", "others"]) -> str:
    """Return a LoRA file's format, or what another file is: ``kohya``; ``a VAE``. Empty when no name tells."""
    for kind, pattern in _ROWS[among]:
        if any(re.search(pattern, name) for name in names):
            return kind
    return ""
