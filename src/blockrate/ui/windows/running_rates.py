"""The button that gives what is drawn to the run that trains, and what the run says to it."""

import asyncio
from collections.abc import Callable
from typing import Any

from nicegui import background_tasks, ui

from blockrate.config.new_rates import rates_in
from blockrate.core.errors import BlockrateError
from blockrate.core.profile import KEY
from blockrate.run.live_rates import Answer, Question, ask_for_rates
from blockrate.run.places import place
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change
from blockrate.ui.windows.rates import RatesDraft

NOTE = (
    "A run is at work. OK keeps the rates for the next start; "
    "“Use for the running training” gives them to the run, too."
)
_LOOKS = 0.3  # seconds between two looks for an answer
_ASKED = "Asked: the run takes the rates when its step is over."


class RunningRates:
    """Shown while a run trains. ``taken`` is called when the run has taken rates that are the config's from then on."""

    def __init__(
        self, page: Page, rates: RatesDraft, *, taken: Callable[[], None]
    ) -> None:
        self._page = page
        self._rates = rates
        self._taken = taken
        self._asking = False
        self._replaced = ""
        self._client = ui.context.client
        self._button = ui.button(
            "Use for the running training", on_click=self._ask, color=None
        )
        self._button.props("flat no-caps dense")
        call_on_change(page.watch.changed, self._refresh)

    def _refresh(self) -> None:
        self._button.set_visibility(self._page.watch.state.name == "Running")
        self._button.set_enabled(not self._asking)

    def _ask(self) -> None:
        """Ask the run, and answer on this page whatever becomes of the window."""
        run = self._page.watch.run
        if self._asking or run is None:
            return
        rates = self._rates.state
        config = self._page.watch.history.config
        phases = config.block_learning_rate_phases if config else []
        self._replaced = " They replace its phases of rates." if phases else ""
        try:
            if self._rates.problem:
                return self._page.show_message(self._rates.problem, kind="error")
            question = ask_for_rates(run, rates_in({KEY: rates}, KEY))
        except BlockrateError as error:
            return self._page.show_message(str(error), kind="error")
        self._asking = True
        self._refresh()
        self._page.show_message(_ASKED)
        background_tasks.create(self._answer(question, rates))
        return None

    async def _answer(self, question: Question, rates: Any) -> None:
        answer = await asyncio.to_thread(question.answer)
        while answer is None:
            await asyncio.sleep(_LOOKS)
            answer = await asyncio.to_thread(question.answer)
        self._asking = False
        if answer.state == "taken":
            self._keep(question, rates)
        # the page may be gone, and with it whoever asked
        if self._client.has_socket_connection:
            with self._client:
                self._tell(answer)

    def _keep(self, question: Question, rates: Any) -> None:
        """Let the open config have them, too, if it is that of the run: Start trains with what it shows."""
        session = self._page.session
        placed = place(session.usable, session.source)
        if placed.run.path.absolute() != question.run.path:
            return
        if session.get(KEY) == self._rates.opened:
            self._rates.opened = rates
            session.set({KEY: rates})
            self._taken()

    def _tell(self, answer: Answer) -> None:
        if answer.state == "taken":
            text = f"The run trains with these rates from step {answer.step + 1:,} on."
            self._page.show_message(text + self._replaced)
        else:
            text = f"The run keeps its rates. {answer.sentence}"
            self._page.show_message(text, kind="error")
        if not self._button.is_deleted:
            self._refresh()
