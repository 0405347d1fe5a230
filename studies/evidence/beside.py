"""Imported first: lets the study import the modules of studies/miniature, which lie beside it."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "miniature"))
