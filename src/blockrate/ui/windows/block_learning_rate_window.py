"""The Block Learning Rate window behind the three-dot button of the layer filter."""

from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakSet

from nicegui import ui
from nicegui.element import Element

from blockrate.config.base_model import model_spec
from blockrate.config.filtered import matching_layers
from blockrate.config.plan import WORTH_TELLING, Plan, make_plan
from blockrate.config.rate_phases import PHASES_KEY
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import OTHER, block_of
from blockrate.core.depth import layout_text
from blockrate.core.errors import BlockrateError, ConfigError, FileError
from blockrate.core.layer_filter import PRESETS, split_patterns
from blockrate.core.profile import KEY
from blockrate.core.units import share_text, size_text
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, never
from blockrate.ui.parts.labels import in_labels
from blockrate.ui.session import Session
from blockrate.ui.windows.block_mixer import BlockMixer
from blockrate.ui.windows.measured import Measured
from blockrate.ui.windows.optimizer_window import why_not_differing_rates
from blockrate.ui.windows.preset_menu import PresetMenu
from blockrate.ui.windows.rate_tools import RateTools
from blockrate.ui.windows.rates import RatesDraft
from blockrate.ui.windows.running_rates import NOTE, RunningRates
from blockrate.ui.windows.window import Window

_NO_MODEL = "Choose a Flux model"
_PHASES = f"The rates change in the course of the run: edit {PHASES_KEY} in the config"
_NO_LAYERS = "Correct the layer filter: it leaves nothing to train"
_ALL_FROZEN = "Everything is frozen, so nothing would train. Start waits until a fader is above 0."
# and neither taken nor thrown away, as when a page vanishes
_LEFT = "rates that were drawn"


def open_block_learning_rate_window(page: Page, opener: Element) -> None:
    """Open the window; ``opener`` gets the focus back."""
    BlockLearningRateWindow(page, opener).frame.open()


def why_no_window(session: Session) -> str:
    """Why the window cannot be opened with this config, ``""`` if it can."""
    config = session.usable
    if session.get(PHASES_KEY):
        return _PHASES
    try:
        layers, _ = matching_layers(config)
    except FileError:
        return _NO_MODEL
    except ConfigError:
        layers = ()
    return "" if layers else _NO_LAYERS


def why_not_block_rates(session: Session) -> str:
    """Why the three dots of the layer filter do not open the window, ``""`` if they do."""
    config = session.usable
    if reason := why_no_window(session):
        return reason
    patterns = split_patterns(config.layer_filter) or PRESETS["blocks"]
    if config.layer_filter_preset == "blocks" and patterns == PRESETS["blocks"]:
        return ""
    return 'Choose the "blocks" filter'


class Purpose(NamedTuple):
    """What rates are drawn for, in words, and what is done with them at OK, changed or not."""

    note: str = ""
    taken: Callable[[], object] = never


class BlockLearningRateWindow:
    """The window over the rates of a page's config, which is the open one unless a ``purpose`` says otherwise."""

    def __init__(
        self, page: Page, opener: Element, purpose: Purpose | None = None
    ) -> None:
        self._purpose = purpose or Purpose()
        self._session = page.session
        self._client = ui.context.client
        self._offer: Element | None = None
        self._config = page.session.usable
        self._rates = _rates_draft(self._config, page.session.get(KEY))
        self.frame = Window(
            page,
            "Block Learning Rate",
            self,
            opener=opener,
            reset_label="Reset All to 1.0",
            wide=True,
            note=NOTE,
            purpose=self._purpose.note,
        )
        self._build(page)

    def _build(self, page: Page) -> None:
        with self.frame.header:
            self._presets = self._preset_menu(page)
            self._base = ui.label().classes("rates-base")
        with self.frame.body:
            self._offer_left()
            self._offer_depth()
            self._refusal = ui.label().classes("rates-note")
            self._wrong = ui.label().classes("rates-note is-wrong")
            self._mixer = BlockMixer(
                self._rates,
                drawn=self._keep_drawn,
                selected=lambda names: self._tools.show_selection(names),
            )
            self._measured = Measured(
                page,
                self._rates,
                self._mixer,
                change=lambda action: self._tools.change(action),
            )
            self._mixer.on("undo", lambda: self._tools.change(self._undo))
            self._mixer.on("redo", lambda: self._tools.change(self._redo))
            self._tools: RateTools = RateTools(
                page, self._rates, self._mixer, drawn=self._keep_drawn
            )
        with self.frame.footer:
            self._build_footer(page)

    def _build_footer(self, page: Page) -> None:
        self._cost = ui.label()
        if not self._purpose.note:
            self._measured.build_button()
            RunningRates(page, self._rates, taken=self._show_outcome)
        call_on_change(self._session.changed, self._follow)

    def _preset_menu(self, page: Page) -> PresetMenu:
        return PresetMenu(
            page,
            self._rates,
            change=lambda action: self._tools.change(action),
            selection=lambda: self._tools.selection,
        )

    # -- what the frame asks for

    @property
    def dirty(self) -> bool:
        """Whether OK would change the config."""
        return self._rates.dirty

    @property
    def stale(self) -> bool:
        """Whether the config has other rates than when they were read."""
        return bool(self._session.get(KEY) != self._rates.opened)

    def ok(self) -> None:
        """Write the rates into the config."""
        if self._rates.dirty:
            self._session.set({KEY: self._rates.state})
        self._purpose.taken()

    def reset(self) -> None:
        """Bring all faders to 1.0."""
        self._tools.change(self._set_all_to_one)

    def forget(self) -> None:
        """Keep nothing of what was drawn."""
        _open_windows.discard(self)
        self._session.remember(_LEFT, None)

    # -- changes, and what is said of them

    def _undo(self) -> str:
        self._rates.step(-1)
        return "Undone"

    def _redo(self) -> str:
        self._rates.step(1)
        return "Redone"

    def _set_all_to_one(self) -> str:
        self._rates.replace({})
        return "All at 1.0"

    def _restore(self, state: Any) -> str:
        self._rates.replace(state)
        return "Restored"

    def _discard(self) -> str:
        self._rates.replace(self._rates.opened)
        return "Discarded"

    def _offer_left(self) -> None:
        """Offer what was drawn on a page that is gone, until something is drawn here."""
        left = self._session.remembered(_LEFT)
        others = [window for window in _open_windows if window.is_still_open]
        _open_windows.add(self)
        if not left or left == [self._rates.state] or others:
            return
        [state] = left
        with ui.element("div").classes("rates-note") as self._offer:
            ui.label("There are changes that were not taken over with OK.")
            restore = ui.button("Restore")
            discard = ui.button("Discard")
        restore.on_click(lambda: self._tools.change(lambda: self._restore(state)))
        discard.on_click(lambda: self._tools.change(self._discard))
        for button in (restore, discard):
            button.props("no-caps flat dense")

    @property
    def is_still_open(self) -> bool:
        """Whether somebody may be drawing here: a page that was left has no connection."""
        return self._client.has_socket_connection

    def _offer_depth(self) -> None:
        """Offer to carry rates over that were made for a model with other blocks."""
        source = self._rates.offer()
        if source is None:
            return
        with ui.element("div").classes("rates-note") as offer:
            ui.label(f"These rates were made for {layout_text(source)}.")
            take = ui.button("Carry over by depth")
        take.on_click(lambda: self._tools.change(self._rates.take_by_depth))
        take.props("no-caps flat dense").on_click(offer.delete)

    # -- what it comes to

    def _keep_drawn(self) -> None:
        """Keep what is drawn in case the page vanishes, and show what it comes to."""
        self._session.remember(_LEFT, [self._rates.state])
        if self._offer:
            self._offer.delete()
            self._offer = None
        self._show_outcome()

    def _follow(self) -> None:
        """Follow the config: the base rate, the optimizer, and the rates while nothing is drawn here."""
        self._config = self._session.usable
        if not self._rates.dirty and self.stale:
            self._rates.open(self._session.get(KEY))
        base = self._config.base_learning_rate()
        self._base.set_text(f"base {base:.2e} × fader")  # noqa: RUF001 (the sign of multiplying)
        self._mixer.show(base=base)
        self._show_outcome()

    def _show_outcome(self) -> None:
        """Say which preset they are, what is wrong with them, what the optimizer refuses, what they cost."""
        self._presets.refresh()
        wrong = self._rates.problem
        if self._rates.offer():  # which says the same in fewer words
            wrong = ""
        if wrong:
            wrong = f"Kept as it is, and Start waits until it is right: {wrong}"
        self._wrong.text = wrong
        self._refusal.text = why_not_differing_rates(self._session)
        self._show_cost()

    def _show_cost(self) -> None:
        changed = self._config.model_copy(update={KEY: self._rates.rates})
        try:
            self._cost.set_text(cost_text(make_plan(changed)))
            self._cost.classes(replace="")
        except BlockrateError as error:
            trains = self._rates.profile.ever_trained & set(self._rates.drawable)
            self._cost.set_text(in_labels(str(error)) if trains else _ALL_FROZEN)
            self._cost.classes(replace="is-wrong")


_open_windows: WeakSet[BlockLearningRateWindow] = WeakSet()


def _rates_draft(config: TrainConfig, rates: Any) -> RatesDraft:
    layers, _ = matching_layers(config)
    trains = {block_of(layer) or OTHER for layer in layers}
    spec = model_spec(config)
    shared = spec.facts["shared_modulation"]
    return RatesDraft(spec.layout, rates, trains=trains, other_feeds_blocks=shared)


def cost_text(plan: Plan) -> str:
    """Say where training starts, what that saves in time and memory, and what other costs, as ``plan`` does."""
    return " ".join(filter(None, [_savings_text(plan), _other_text(plan)]))


def _savings_text(plan: Plan) -> str:
    first = plan.first_trained_block or "the other weights"
    start = f"Training starts at {first.replace('_block_', ' ')}"
    now = plan.memory_bytes.total
    ones = plan.memory_bytes_all_ones.total
    if now == ones:
        return f"{start}. A block at 0 is frozen; the first blocks save most."
    saved = f"{size_text(ones - now)} less memory"
    memory = f"{saved} ({share_text(now, ones)})"
    time = round(100 * (1 - plan.step_cost))
    if not time:
        return f"{start}: {memory}."
    return f"{start}: about {time} % less time a step, {memory}."


def _other_text(plan: Plan) -> str:
    """Say what it costs that other trains, or would."""
    if plan.other_cost < WORTH_TELLING:
        return ""
    times = f"{plan.other_cost:.2f} times"
    if plan.other_trains:
        return f"Other trains, and a step costs {times} what it would with Other at 0."
    return f"Other above 0 would make a step cost {times} as much."
