"""Writes requirements.lock: `python start.py lock`."""

import re
import subprocess
import sys
from pathlib import Path

from support.start_module import ROOT, start

EXTRAS = ("optimizers", "files", "board", "dev")
# torch and what it brings along: another file for each card
TORCHS_OWN = re.compile(r"torch|triton|pytorch-triton|nvidia-(?!ml-py)|cuda-")
# a system on which nobody trains
BROWSERS_OWN = "sys_platform == 'emscripten'"
HEAD = """\
# What `start.py` installs, and the hash of every file that it may be: written by `python start.py lock` from
# constraints.txt and pyproject.toml. Torch, and what comes with it for a card, is not here: it goes by its version.
"""


def main() -> int:
    """Find the hashes of every file of every pinned version, and write the lock."""
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet"]
    for name in EXTRAS:
        command += ["--extra", name]
    command += ["--constraint", "constraints.txt", "--universal"]
    command += ["--python-version", "3.11", "--only-binary", ":all:"]
    command += ["--generate-hashes", "--no-annotate", "--no-header"]
    # pip is not a package that blockrate asks for, and is installed all the same
    command += ["pyproject.toml", "-"]
    pipe = subprocess.PIPE
    found = subprocess.run(command, input="pip\n", stdout=pipe, text=True, cwd=ROOT)
    if found.returncode:
        return found.returncode
    blocks = start.lock_blocks(found.stdout)
    kept = [
        block
        for name, block in blocks
        if not TORCHS_OWN.match(name) and BROWSERS_OWN not in block
    ]
    text = HEAD + "".join(kept)
    (ROOT / "requirements.lock").write_text(text, encoding="utf-8", newline="\n")
    print(f"requirements.lock: {len(kept)} packages, {text.count('--hash=')} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
