"""The Training tab: how it learns, and which layers."""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from nicegui import ui

from blockrate.config.optimizers import OPTIMIZERS, differing_rates_refusal
from blockrate.config.plan import matching_layers
from blockrate.core.errors import BlockrateError
from blockrate.core.layer_filter import PRESETS, split_patterns
from blockrate.core.multipliers import KEY, is_used
from blockrate.ui.components import field, options_adv, section, watched
from blockrate.ui.page import Page
from blockrate.ui.session import Session
from blockrate.ui.windows import scheduler_window, timestep_window
from blockrate.ui.windows.block_learning_rate_window import (
    open_block_learning_rate_window,
    sparkline,
    why_not_block_rates,
)
from blockrate.ui.windows.optimizer_window import open_optimizer_window, row_of

_RATES = ("learning_rate", "transformer.learning_rate", "epochs", "batch_size")
_STEPS = ("gradient_accumulation_steps", "clip_grad_norm")
_IMAGES = ("resolution", "train_dtype", "transformer.guidance_scale", "transformer.gradient_checkpointing")
_EMA = ("ema", "ema_decay", "ema_update_step_interval")
_FREEZE = ("transformer.stop_training_after", "transformer.stop_training_after_unit", "transformer.train")
_LORA = ("lora_rank", "lora_alpha", "dropout_probability")
_LOSS = ("mse_strength", "mae_strength", "log_cosh_strength", "huber_strength", "huber_delta", "loss_weight_fn")
_SAVING = (
    *("backup_after", "backup_after_unit", "rolling_backup", "rolling_backup_count", "save_every", "save_every_unit"),
    *("save_skip_first", "save_filename_prefix", "telemetry_every"),
)
_written: WeakKeyDictionary[Session, str] = WeakKeyDictionary()  # the custom filter, while a preset is chosen


def build(page: Page) -> None:
    """Lay out the tab."""
    with ui.element("div").classes("stack"):
        _optimisation(page)
        _group(page, "Images and precision", _IMAGES)
        _group(page, "Moving average of the weights", _EMA)
    with ui.element("div").classes("stack"):
        _layers(page)
        with section("LoRA") as card:
            for path in _LORA:
                field(page.session, path, classes="half")
            field(page.session, "lora_model_name")
        _shown_if(page, card, lambda: page.session.get("training_method") != "FINE_TUNE")
        _fold(page, "Loss", _LOSS)
        _fold(page, "Saving and reports", _SAVING)


def _group(page: Page, title: str, paths: tuple[str, ...]) -> None:
    with section(title):
        for path in paths:
            field(page.session, path, classes="half")


def _fold(page: Page, title: str, paths: tuple[str, ...]) -> None:
    with ui.element("section").classes("card"), ui.expansion(title).classes("fold"):  # noqa: SIM117 (what holds what)
        with ui.element("div").classes("card-body"):
            for path in paths:
                field(page.session, path, classes="half")


def _shown_if(page: Page, element: ui.element, wanted: Any) -> None:
    with element:
        watched(page.session.changed, lambda: element.set_visibility(bool(wanted())))


def _optimisation(page: Page) -> None:
    session = page.session
    with section("Optimisation"):
        options_adv(
            session,
            "optimizer.optimizer",
            label="Optimizer",
            open=lambda opener: open_optimizer_window(page, opener),
            holds=[f"optimizer.{name}" for row in OPTIMIZERS.values() for name in row.parameters],
        )
        refusal = ui.label().classes("banner")
        options_adv(
            session,
            "learning_rate_scheduler",
            label="Learning Rate Scheduler",
            open=lambda opener: scheduler_window.open_scheduler_window(page, opener),
            holds=scheduler_window.PATHS[1:],
        )
        for path in (*_RATES, *_STEPS):
            field(session, path, classes="half")
        field(session, "learning_rate_warmup_steps", classes="half")
        options_adv(
            session,
            "timestep_distribution",
            label="Timestep Distribution",
            open=lambda opener: timestep_window.open_timestep_window(page, opener),
            holds=timestep_window.PATHS,
        )

        def refuse() -> None:
            why = differing_rates_refusal(session.last_good.optimizer) or row_of(session).why
            able = row_of(session).per_block_rates and not differing_rates_refusal(session.last_good.optimizer)
            refusal.set_visibility(not able and _rates_are_used(session))
            refusal.set_text(f"{row_of(session).title} cannot give blocks rates of their own, but 0 and 1: {why}.")

        watched(session.changed, refuse)


def _rates_are_used(session: Session) -> bool:
    rates = session.get(KEY)
    return isinstance(rates, dict) and is_used(rates)


class _Filter:
    """The layer filter as one choice: a preset, or the user's own text, which is kept while a preset is chosen."""

    def __init__(self, session: Session) -> None:
        self.session, self.changed = session, session.changed

    @property
    def preset(self) -> str:
        """The choice that is in effect: a text of its own wins over a preset."""
        preset, text = str(self.session.get("layer_filter_preset")), str(self.session.get("layer_filter") or "")
        written = split_patterns(text)
        return "custom" if written and written != PRESETS.get(preset) else preset

    def get(self, path: str) -> Any:
        """Return what is in effect."""
        if path == "layer_filter_preset":
            return self.preset
        return self.session.get(path) or ",".join(PRESETS.get(self.preset, ()))

    def set(self, values: Mapping[str, Any]) -> None:
        """Write the preset with its text, so that every trainer that reads the file does the same."""
        preset = values.get("layer_filter_preset")
        if preset is None:
            return self.session.set(values)
        if self.preset == "custom":
            _written[self.session] = str(self.session.get("layer_filter") or "")
        text = _written.get(self.session, "") if preset == "custom" else ",".join(PRESETS.get(preset, ()))
        regex = {} if preset == "custom" else {"layer_filter_regex": False}
        return self.session.set({"layer_filter_preset": preset, "layer_filter": text, **regex})

    def problem(self, path: str) -> str:
        """Return what is wrong with the filter."""
        return self.session.problem(path)


def _layers(page: Page) -> None:
    session, chosen = page.session, _Filter(page.session)
    with section("Layers to train"):
        options_adv(
            chosen,
            "layer_filter_preset",
            label="Layer Filter",
            open=lambda opener: open_block_learning_rate_window(page, opener),
            why_not=lambda: why_not_block_rates(session),
            holds=[KEY],
        )
        pattern = field(
            chosen,
            "layer_filter",
            label="Pattern",
            why_not=lambda: "" if chosen.preset == "custom" else 'Choose "custom" to write your own',
        )
        regex = field(session, "layer_filter_regex")
        _shown_if(page, pattern, lambda: chosen.preset != "full")
        _shown_if(page, regex, lambda: chosen.preset == "custom")
        _matches(page)
        sparkline(page)
        _still_in_effect(page, chosen)
        for path in _FREEZE:
            field(session, path, classes="half")


def _matches(page: Page) -> None:
    """How many layers the filter matches, and on request which."""
    with ui.expansion().classes("fold matches") as fold:
        names = ui.label().classes("mono layer-names")

    def refresh() -> None:
        found: tuple[str, ...] = ()
        try:
            found, count = matching_layers(page.session.last_good)
            fold.text = f"Matches {len(found):,} of {count:,} layers"
        except BlockrateError:
            fold.text = "Choose a model to see which layers match"
        names.set_text("\n".join(found) if fold.value else "")

    fold.on_value_change(refresh)
    watched(page.session.changed, refresh)


def _still_in_effect(page: Page, chosen: _Filter) -> None:
    session = page.session
    with ui.element("div").classes("banner") as line:
        ui.label('Block rates stay in effect; choose "blocks" to edit them.')
        reset = ui.element("button").props("type=button").classes("link")
        with reset.on("click", lambda: session.set({KEY: {}})):
            ui.label("Reset")
    watched(session.changed, lambda: line.set_visibility(chosen.preset != "blocks" and _rates_are_used(session)))
