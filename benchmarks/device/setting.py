"""What has to be set before torch is imported."""

import os
import sys
from pathlib import Path


def prepare(project: Path, *more: Path) -> None:
    """Let this program and those that it starts find blockrate in ``project``, and look for nothing on the network."""
    source = str(project / "src")
    sys.path[:0] = [source, *map(str, more)]
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [source, inherited]))
    os.environ.update(
        HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false"
    )
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
