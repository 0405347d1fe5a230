"""A look at data that a test lays out, and the findings by kind."""

from pathlib import Path
from typing import Any

from PIL import Image

from blockrate.config.train_config import TrainConfig
from blockrate.dataset.findings import Finding
from blockrate.dataset.report import DataFound, look_at_data

PARAGRAPHS = "A man in an alley.\n\nThe light is golden.\n\nThe camera is low.\n"


def looked(
    *concepts: dict[str, Any], beside: Path | None = None, **settings: Any
) -> DataFound:
    values = {"resolution": "64", "concepts": list(concepts), **settings}
    return look_at_data(TrainConfig(**values), beside=beside)


def told(
    folder: Path, settings: dict[str, Any] | None = None, **concept: Any
) -> dict[str, Finding]:
    """What is said of a folder, by kind."""
    found = looked({"path": str(folder), **concept}, **(settings or {}))
    return {finding.kind: finding for finding in found.report.findings}


def put(folder: Path, *names: str, text: str = "", size: int = 64) -> None:
    """Put an image, each of another colour, or a text into a folder under each name."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix.lower() in (".png", ".jpg"):
            colour = sum(map(ord, file.as_posix())) % 256
            Image.new("RGB", (size, size), (colour, len(name), 7)).save(file)
        else:
            file.write_text(text or f"a {file.stem}")
