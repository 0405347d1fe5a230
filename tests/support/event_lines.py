"""The events of a run as another program reads them: JSON by line, without our classes."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any


def event_lines(file: Path, *kinds: str) -> list[dict[str, Any]]:
    """The whole lines of a file of events, of these kinds or all; none where it is missing."""
    found = []
    for line in file.read_bytes().splitlines() if file.exists() else ():
        # torn by a kill, or still being written
        with suppress(ValueError):
            event = json.loads(line)
            if not kinds or event["type"] in kinds:
                found.append(event)
    return found
