"""The engine's own tests on this device: they take the best one there is."""

import subprocess
import sys

from device.card import CUDA, clear
from device.shared import Check


def run_suite(check: Check) -> None:
    """Run the tests of the engine; on a card most fit beside each other."""
    report = check.report
    if not report.has_time("suite", 50):
        return
    check.weights.drop()
    clear()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["tests/engine", "--maxfail=30"]
    # wants the next huggingface_hub, which such a machine need not have
    command += ["--ignore=tests/engine/models/test_locate.py"]
    if CUDA:
        command += ["--tb=line", "-n", "8"]
    else:
        command += ["-x"]
    path = report.folder / "suite.log"
    code: int | str = "cut off"
    with path.open("wb") as log:
        try:
            done = subprocess.run(
                command,
                cwd=check.project,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=report.left() - 10,
                check=False,
            )
        except subprocess.TimeoutExpired:
            pass
        else:
            code = done.returncode
    end = path.read_text(errors="replace").splitlines()[-12:]
    row = {"what": "tests/engine on this device", "exit code": code, "end": end[-1:]}
    report.say("tests", row)
    print("\n".join(end), flush=True)
