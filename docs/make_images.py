"""Draws docs/images/*.svg from real output: `python docs/make_images.py`, in a clone where `demo` has finished.

The sheet of pictures that the demo ends with becomes docs/images/miniature.png.

The pictures show what the commands print, in this order: plan, demo, inspect. Only the folder's name is shortened, and
rows in the middle of a long table are left out, with a line that says how many.
"""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
IMAGES = Path(__file__).with_name("images")
WIDTH = 84  # signs in a line
# rows of a long table that stay
HEAD = 12
TAIL = 9
COMMANDS = {
    "plan": ("plan", "examples/layer_wise_decay.json"),
    "demo": ("demo",),
    "inspect": ("inspect", "workspace/demo/demo.safetensors"),
}
WHOLE = ("inspect",)  # its bars are a picture only together
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def draw(name: str) -> None:
    """Run one command and write its picture."""
    words = COMMANDS[name]
    lines = [f"\x1b[1m$ blockrate {' '.join(words)}\x1b[0m", *output(words)]
    text = Text.from_ansi(
        "\n".join([*(lines if name in WHOLE else shortened(lines)), ""])
    )
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(text, soft_wrap=False, highlight=False)
    svg = console.export_svg(title="blockrate", unique_id=name)
    # A picture that loads fonts from elsewhere is not shown by many viewers, and tells that host who looks at it.
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace(
        "Fira Code, monospace", FONTS
    )
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / f"{name}.svg").write_text(svg, encoding="utf-8")


def output(words: tuple[str, ...]) -> list[str]:
    """Return the lines that a command prints in a terminal of our width, without those that are blank at the ends."""
    environment = {
        **os.environ,
        "COLUMNS": str(WIDTH),
        "FORCE_COLOR": "1",
        # so that it calls itself `blockrate`
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "blockrate", *words]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.replace(str(ROOT), "~/blockrate").strip("\n").splitlines()


def shortened(lines: list[str]) -> list[str]:
    """Return lines with the middle of the longest table left out."""
    rows = [
        number
        for number, line in enumerate(lines)
        if re.match(r"(\x1b\[[0-9;]*m)* *(double|single)_block_", line)
    ]
    left_out = rows[HEAD:-TAIL]
    if not left_out:
        return lines
    mark = f" \x1b[2m... {len(left_out)} more rows\x1b[0m"
    return [*lines[: left_out[0]], mark, *lines[left_out[-1] + 1 :]]


if __name__ == "__main__":
    for picture in COMMANDS:
        draw(picture)
    shutil.copy(ROOT / "workspace" / "demo" / "pictures.png", IMAGES / "miniature.png")
