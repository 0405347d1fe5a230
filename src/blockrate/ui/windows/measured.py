"""Measuring what each block could learn first: the button in the footer, bars beside the faders, the two choices."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from nicegui import ui
from nicegui.element import Element

from blockrate.core.advice import Probe, levels, shares
from blockrate.core.advice_words import (
    faster_sentence,
    proportion_sentence,
    total_sentence,
    transfer_sentence,
)
from blockrate.core.errors import BlockrateError
from blockrate.run.launch import Launched, Refused
from blockrate.ui.live.measuring import (
    Measuring,
    folder_of_probe,
    look_at_probe,
    measured_for,
    start_probe,
    stop_probe,
)
from blockrate.ui.live.watch import ALIVE
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change
from blockrate.ui.parts.labels import in_labels
from blockrate.ui.windows.block_mixer import BlockMixer
from blockrate.ui.windows.rates import RatesDraft

_WHAT = (
    "Before training: where a step of the same size lowers the loss most, on your pictures. "
    "16 batches and no step; it takes about as long as so many steps."
)
_AT_WORK = "A run is at work: measure before it, or after it."
_WRONG = "Some settings are wrong. Correct them first."
_STOPPED = "Stopped before it was done: nothing was measured."
_SECONDS = 1.0  # between two looks at the probe
_EVERY = 5  # looks until the pictures are looked at again


class Measured:
    """What was measured for the open config. ``change``: changes the rates and tells what its action returns."""

    def __init__(
        self,
        page: Page,
        rates: RatesDraft,
        mixer: BlockMixer,
        change: Callable[[Callable[[], str]], None],
    ) -> None:
        self._page = page
        self._rates = rates
        self._mixer = mixer
        self._change = change
        self._found: Probe | None = None
        self._alive = False
        self._starting = False
        self._told = ""  # why the last probe from this window gave nothing
        self._news = ""  # for a screen reader, by the faders' own live region
        self._started: Launched | None = None  # by this window, and not seen to end
        self._is_stale = True
        self._looks = 0
        self._looking = False
        self._words = ui.element("div").classes("rates-measured")

    def build_button(self) -> None:
        """Put the button, and how far it is, where we are."""
        with ui.element("div").classes("rates-measure"):
            self._button = ui.button("Measure", on_click=self._press, color=None)
            self._button.props("flat no-caps dense").tooltip(_WHAT)
            self._progress = ui.label()
        call_on_change(self._page.session.changed, self._look_again)
        call_on_change(self._page.watch.changed, self._show)
        ui.timer(_SECONDS, self._look)

    # -- looking

    def _look_again(self) -> None:
        self._is_stale = True

    async def _look(self) -> None:
        """Look at the probe, and at what it has found when that may be another."""
        if self._looking:
            return
        self._looking = True
        try:
            # the folder may be on a drive that comes back
            with suppress(OSError, BlockrateError):
                await self._look_once()
        finally:
            self._looking = False

    async def _look_once(self) -> None:
        session = self._page.session
        config = session.usable
        run = await asyncio.to_thread(folder_of_probe, config, session.source)
        look = await asyncio.to_thread(look_at_probe, run)
        was_alive = self._alive
        # from its start on, for it has no lock at first
        self._alive = look.state.name in ALIVE or self._is_starting()
        has_ended = was_alive and not self._alive
        if has_ended:
            self._take_end(look)
        self._looks += 1
        if has_ended or self._is_stale or self._looks % _EVERY == 0:
            self._is_stale = False
            found = await asyncio.to_thread(measured_for, config, session.source)
            if found != self._found or has_ended:
                self._found = found
                self._draw()
        self._show(look)

    def _take_end(self, look: Measuring) -> None:
        """Take note of how a probe has ended."""
        self._told = ""
        self._news = "Measured"
        if self._started and look.state.name != "Finished":
            self._told = look.state.sentence
            if look.state.name == "Stopped":
                self._told = _STOPPED
            self._news = self._told
        self._started = None

    def _is_starting(self) -> bool:
        return bool(self._started and self._started.process.poll() is None)

    # -- the button

    async def _press(self) -> None:
        session = self._page.session
        if self._alive:
            run = await asyncio.to_thread(
                folder_of_probe, session.usable, session.source
            )
            await asyncio.to_thread(stop_probe, run)
            return
        if self._starting:
            return
        if self._page.watch.state.name in ALIVE or self._page.watch.starting:
            return self._page.show_message(_AT_WORK, kind="warning")
        if session.config is None or session.problems:
            return self._page.show_message(_WRONG, kind="error")
        self._starting = True
        self._show()
        try:
            answer, said = await asyncio.to_thread(
                start_probe, session.config, session.source
            )
        except (BlockrateError, OSError) as error:
            return self._page.show_message(str(error), kind="error")
        finally:
            self._starting = False
            self._show()
        for text in said:
            self._page.show_message(text.removeprefix("warning: "), kind="warning")
        if isinstance(answer, Refused):
            self._page.show_message(in_labels(str(answer.error)), kind="error")
        elif isinstance(answer, Launched):
            self._started = answer
            self._alive = True
            self._told = ""
            self._news = "Measuring"
            self._draw()
            self._show()

    def _show(self, look: Measuring | None = None) -> None:
        """Say what the button does now, and how far the probe is."""
        self._button.set_text("Stop measuring" if self._alive else "Measure")
        self._button.set_enabled(not self._starting)
        words = ""
        if self._starting or (self._alive and look is None):
            words = self._progress.text or "starting"
        elif self._alive and look:
            words = look.words
        if words != self._progress.text:
            self._progress.set_text(words)

    # -- what was found

    def _draw(self) -> None:
        """Show the bars, the words and the choices, or that there are none."""
        self._mixer.show(measured=self._bars(), said=self._news)
        self._news = ""
        self._words.clear()
        with self._words:
            if self._told:
                ui.label(in_labels(self._told)).classes("rates-note is-wrong")
            if self._found:
                self._write(self._found)

    def _bars(self) -> dict[str, object] | None:
        """Return what the faders show: heights and whiskers by the largest, and shares."""
        found = self._found
        if found is None:
            return None
        drawn = levels(found.gains, found.errors)
        parts = shares(found.gains)
        top = max((drawn[name] + found.errors[name] for name in drawn), default=0.0)
        whole = sum(max(gain, 0.0) for gain in found.gains.values())
        if top <= 0 or whole <= 0:
            return None
        rows: list[dict[str, float] | None] = []
        for name in self._rates.names:
            if name not in drawn:
                rows.append(None)
                continue
            rows.append(
                {
                    "height": max(drawn[name], 0.0) / top,
                    "error": found.errors[name] / top,
                    "share": parts[name],
                    "share_error": found.errors[name] / whole,
                }
            )
        return {"blocks": rows}

    def _write(self, found: Probe) -> None:
        told = " ".join(filter(None, (total_sentence(found), transfer_sentence(found))))
        ui.label(told)
        if found.verdict:
            ui.label(found.verdict).classes("rates-verdict")
        if not found.total.is_found:
            return
        proposed = found.proposals
        with ui.element("div").classes("rates-choices"):
            if proposed.faster:
                _choice(faster_sentence(found), lambda: self._take(proposed.faster))
            if proposed.in_proportion:
                text = proportion_sentence(found)
                _choice(text, lambda: self._take(proposed.in_proportion))

    def _take(self, multipliers: Mapping[str, float]) -> None:
        """Set all that was measured to these rates, as one undo step; what was not stays as it stands."""
        found = self._found
        if found is None:
            return

        def set_rates() -> str:
            before = self._rates.state if isinstance(self._rates.state, dict) else {}
            kept = {
                name: rate for name, rate in before.items() if name not in found.blocks
            }
            self._rates.replace({**kept, **multipliers})
            return "Rates set from what was measured"

        self._change(set_rates)


def _choice(text: str, take: Callable[[], None]) -> Element:
    button = ui.button(text, on_click=take, color=None)
    return button.props("outline no-caps dense align=left")
