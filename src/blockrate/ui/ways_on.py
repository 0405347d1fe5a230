"""What a way on is called in the app."""

from collections.abc import Mapping

from blockrate.core.errors import WayOn

BUTTONS: Mapping[WayOn, str] = {
    "fresh": "Start anew",
    "reset_new": "Go on, new layers with fresh moments",
    "reset_all": "Go on with fresh moments",
    "extend": "Go on, the rate's schedule stretched",
    "ignore_unsupported": "Remove this setting",
}
WAYS_ON: Mapping[WayOn, str] = {
    "fresh": "start anew, which sets the earlier run aside; nothing is deleted",
    "reset_new": "go on: new layers begin with fresh moments, others keep theirs",
    "reset_all": "go on with fresh moments: the weights stay",
    "extend": "stretch the rate's schedule over all epochs",
    "ignore_unsupported": "train without it: remove it",
}
