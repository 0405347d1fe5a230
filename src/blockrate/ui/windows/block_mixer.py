"""All faders as one element: the browser owns a gesture, the server hears of it once."""

from collections.abc import Callable
from typing import Any

from nicegui.element import Element
from nicegui.events import GenericEventArguments

from blockrate.ui.windows.rates import RatesDraft


class BlockMixer(
    Element,
    component="../static/block_mixer.js",
    esm={"blockrate-mixer": "../static/mixer"},
):
    """The faders of a draft. ``drawn`` is called after each gesture, ``selected`` with the names that are selected.

    ``scales``: they are no rates, but how much of what was learned is drawn with.
    """

    def __init__(
        self,
        draft: RatesDraft,
        *,
        drawn: Callable[[], None],
        selected: Callable[[list[str]], None],
        scales: bool = False,
    ) -> None:
        super().__init__()
        self._draft = draft
        self._drawn = drawn
        self._selected = selected
        self._set_props(
            names=[*draft.names],
            idle=[name for name in draft.names if name not in draft.drawable],
            off="The layer filter leaves nothing of it",
            scales=scales,
            selected=[],
            said=[0, ""],
            base=0.0,
            behind=None,
            measured=None,
            version=0,
        )
        self.on("commit", self._commit)
        self.on("select", self._select)

    def show(self, *, said: str = "", **props: Any) -> None:
        """Send the draft as it is now, and other props; ``said`` is told to a screen reader."""
        if said:
            props["said"] = [self.props["said"][0] + 1, said]
        self._set_props(version=self.props["version"] + 1, **props)
        self.update()

    def _set_props(self, **props: Any) -> None:
        """Know what the browser shows, without sending anything."""
        with self.props.suspend_updates():
            values = list(self._draft.values.values())
            steps = list(self._draft.undoable)
            self.props.update(values=values, steps=steps, **props)

    def _commit(self, event: GenericEventArguments) -> None:
        """Take a gesture over. Nothing goes back, unless the browser had not yet heard of all that was sent."""
        self._draft.commit(dict(event.args["changes"]), str(event.args["merge"]))
        self._set_props()
        if event.args["cleared"]:
            self._choose([])
        if event.args["version"] != self.props["version"]:
            self.show()
        self._drawn()

    def _select(self, event: GenericEventArguments) -> None:
        self._choose([name for name in self._draft.names if name in event.args])

    def _choose(self, names: list[str]) -> None:
        self._set_props(selected=names)
        self._selected(names)
