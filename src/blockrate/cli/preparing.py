"""A run that another starts: a launcher like torchrun, on one machine or on each of several."""

from functools import partial

from blockrate.cli.data_report import refuse_bad_folders
from blockrate.cli.screen import say
from blockrate.run.folder import InUseError
from blockrate.run.launch import AlreadyDone, AtWork, Options, Refused, make_ready
from blockrate.run.places import Placed


def prepared_run(placed: Placed, options: Options, name: str) -> str:
    """Make a run folder ready for an engine, and return its path. Raises what stands against it."""
    run = placed.run
    look = partial(refuse_bad_folders, placed.config, name)
    match make_ready(placed.config, run, options, say, look_at_data=look):
        case AtWork():
            raise InUseError(run)
        case Refused(error=error):
            raise error
        case AlreadyDone() as done:
            say(f"{done.sentence}, --fresh starts anew.")
    return str(run.path.absolute())
