"""The folder in which blockrate remembers things of a user: wishes, drafts, the queue."""

import os
from pathlib import Path

from blockrate.run.durable import disk_errors, make_folder

# which photographs somebody has, and what they are called, is nobody else's business
PRIVATE = 0o600


def state_folder() -> Path:
    """Where blockrate remembers things: BLOCKRATE_HOME, else .blockrate in the home folder."""
    folder = os.environ.get("BLOCKRATE_HOME") or Path.home() / ".blockrate"
    return Path(folder).absolute()


def private_folder(name: str = "") -> Path:
    """Make the state folder, or a folder in it, which only the user may look into. Raises WriteError.

    One that BLOCKRATE_HOME names, and that is there already, stays as open as it is: it may be shared on purpose.
    """
    root = state_folder()
    folder = root / name
    closed = {root, folder}
    if root.exists() and os.environ.get("BLOCKRATE_HOME"):
        closed.discard(root)
    make_folder(folder)
    for own in closed:
        with disk_errors(own):
            own.chmod(0o700)
    return folder
