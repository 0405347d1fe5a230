"""What a process of ours starts with: nothing of the working directory is taken for code.

Otherwise whoever unpacks a data set and trains in its folder would run a ``torch.py`` in it.
"""

import os


def child_environment() -> dict[str, str]:
    """Return this process's environment for a child, and for what that starts in its turn.

    What the user has put on PYTHONPATH stays, but for empty entries: those mean the working
    directory, and come from ``PYTHONPATH=$PYTHONPATH:/elsewhere`` where there was none.
    """
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    entries = environment.pop("PYTHONPATH", "").split(os.pathsep)
    named = os.pathsep.join(entry for entry in entries if entry)
    return {**environment, "PYTHONPATH": named} if named else environment
