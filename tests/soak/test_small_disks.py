"""Real disks that run full while a run saves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.lives import Small

SCRIPT = Path(__file__).with_name("small_disks.py")
NAMESPACE = ["unshare", "-m", "-r"]

pytestmark = pytest.mark.soak


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.call([*NAMESPACE, "true"]) != 0,
    reason="needs user namespaces of Linux",
)
def test_thirty_disks_run_full_and_no_save_is_lost(
    small: Small, tmp_path: Path
) -> None:
    small.live(small.config(tmp_path))  # fills the cache
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [*NAMESPACE, sys.executable, str(SCRIPT), str(small.folder)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split() for line in done.stdout.splitlines() if line[:1].isdigit()]
    ends = [end for _, _, end, _ in rows]
    assert len(rows) == 60
    assert set(ends) == {"73", "finished"}
    assert ends.count("73") >= 30
    assert len({saves for *_, saves in rows}) > 5
