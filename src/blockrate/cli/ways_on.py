"""What a way on is called on the command line."""

from collections.abc import Mapping

from blockrate.core.errors import WayOn

WAYS_ON: Mapping[WayOn, str] = {
    "fresh": "start anew with --fresh: the earlier run is kept aside",
    "reset_new": (
        "add --reset-optimizer new: new modules begin with fresh moments, "
        "others keep theirs"
    ),
    "reset_all": (
        "add --reset-optimizer all: the weights stay, the moments begin anew"
    ),
    "extend": "add --extend: the rate's schedule is stretched over all epochs",
    "ignore_unsupported": "train without it: --ignore-unsupported",
}
