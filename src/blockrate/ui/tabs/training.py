"""The Training tab: how it learns, and which layers."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from nicegui import ui
from nicegui.element import Element

from blockrate.config.fields import in_window
from blockrate.config.plan import matching_layers
from blockrate.core.errors import ConfigError, FileError
from blockrate.core.layer_filter import PRESETS, split_patterns
from blockrate.core.profile import KEY, sparse
from blockrate.ui.page import Page
from blockrate.ui.parts.components import field, options_adv, section, watched
from blockrate.ui.session import Session
from blockrate.ui.windows import (
    block_learning_rate_window,
    optimizer_window,
    scheduler_window,
    timestep_window,
)
from blockrate.ui.windows.sparkline import sparkline

# What stands in each card, in its order, two in a row.
_OPTIMISATION = (
    "learning_rate",
    "learning_rate_warmup_steps",
    "epochs",
    "batch_size",
    "gradient_accumulation_steps",
    "clip_grad_norm",
)
_IMAGES = (
    "resolution",
    "train_dtype",
    "transformer.guidance_scale",
    "transformer.gradient_checkpointing",
)
_EMA = (
    "ema",
    "ema_decay",
    "ema_update_step_interval",
)
_LOSS = (
    "mse_strength",
    "mae_strength",
    "log_cosh_strength",
    "loss_weight_fn",
    "huber_strength",
    "huber_delta",
)
_TRANSFORMER = (
    "transformer.train",
    "transformer.learning_rate",
    "transformer.stop_training_after",
    "transformer.stop_training_after_unit",
)
_LORA = (
    "lora_rank",
    "lora_alpha",
    "dropout_probability",
    "lora_weight_dtype",
)
_SAVING = (
    "save_filename_prefix",
    "backup_after",
    "backup_after_unit",
    "rolling_backup",
    "rolling_backup_count",
    "save_every",
    "save_every_unit",
    "save_skip_first",
    "telemetry_every",
)
_FILTER = (
    "layer_filter_preset",
    "layer_filter",
    "layer_filter_regex",
)
_OWN = "own layer filter"  # what is remembered of it while a preset is chosen


def build(page: Page) -> None:
    """Lay out the tab."""
    session = page.session
    with ui.element("div").classes("stack"):
        _optimisation(page)
        for title, paths in (
            ("Images and precision", _IMAGES),
            ("Moving average of the weights", _EMA),
        ):
            with section(title):
                _rows(session, paths)
        _fold(session, "Loss", _LOSS)
    with ui.element("div").classes("stack"):
        _layers(page)
        with section("Transformer"):
            _rows(session, _TRANSFORMER)
        with section("LoRA") as lora:
            _rows(session, _LORA)
            field(session, "lora_model_name")
        _shown_if(session, lora, lambda: session.get("training_method") != "FINE_TUNE")
        _fold(session, "Saving and reports", _SAVING)


def _fold(session: Session, title: str, paths: Sequence[str]) -> None:
    with (
        ui.expansion(title).classes("card fold"),
        ui.element("div").classes("card-body"),
    ):
        _rows(session, paths)


def _rows(session: Session, paths: Sequence[str]) -> None:
    """Two fields in a row; of an odd number the first has a row of its own."""
    alone = paths[: len(paths) % 2]
    for path in paths:
        field(session, path, classes="" if path in alone else "half")


def _shown_if(session: Session, element: Element, wanted: Callable[[], bool]) -> None:
    with element:
        watched(session.changed, lambda: element.set_visibility(wanted()))


def _rates_are_used(session: Session) -> bool:
    rates = session.get(KEY)
    return isinstance(rates, dict) and bool(sparse(rates))


def _optimisation(page: Page) -> None:
    session = page.session
    with section("Optimisation"):
        opened = partial(optimizer_window.open_optimizer_window, page)
        options_adv(
            session,
            "optimizer.optimizer",
            label="Optimizer",
            open=opened,
            holds=in_window("Optimizer"),
        )
        banner = ui.label().classes("banner")
        opened = partial(scheduler_window.open_scheduler_window, page)
        label = "Learning Rate Scheduler"
        options_adv(
            session,
            "learning_rate_scheduler",
            label=label,
            open=opened,
            holds=scheduler_window.PATHS,
        )
        _rows(session, _OPTIMISATION)
        opened = partial(timestep_window.open_timestep_window, page)
        label = "Timestep Distribution"
        options_adv(
            session,
            "timestep_distribution",
            label=label,
            open=opened,
            holds=timestep_window.PATHS,
        )

        def refuse() -> None:
            told = session.problem("optimizer.optimizer") or not _rates_are_used(
                session
            )
            optimizer_window.tell(
                banner,
                "" if told else optimizer_window.why_not_differing_rates(session),
            )

        watched(session.changed, refuse)


class LayerChoice:
    """The layer filter as one choice: a preset, or the user's own text, which is kept while a preset is chosen."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.changed = session.changed
        self.problem = session.problem

    @property
    def preset(self) -> str:
        """The choice that is in effect: a text of its own wins over a preset."""
        preset, text = (str(self.session.get(path) or "") for path in _FILTER[:2])
        written = split_patterns(text)
        return "custom" if written and written != PRESETS.get(preset) else preset

    def get(self, path: str) -> Any:
        """Return what is in effect."""
        if path == "layer_filter_preset":
            return self.preset
        return self.session.get(path) or ",".join(PRESETS.get(self.preset, ()))

    def set(self, values: Mapping[str, Any]) -> None:
        """Write the preset with its text, so that every trainer that reads the file does the same."""
        # who edits the text keeps it, even where it is that of a preset
        preset = values.get(_FILTER[0], "custom")
        own = {
            _FILTER[1]: self.get(_FILTER[1]),
            _FILTER[2]: self.session.get(_FILTER[2]),
        }
        if self.preset == "custom":
            self.session.remember(_OWN, own)
        ready = {_FILTER[1]: ",".join(PRESETS.get(preset, ())), _FILTER[2]: False}
        kept = (self.session.remembered(_OWN) or own) if preset == "custom" else ready
        self.session.set({_FILTER[0]: preset, **kept, **values})


def _layers(page: Page) -> None:
    session = page.session
    chosen = LayerChoice(page.session)
    with section("Layers to train"):
        options_adv(
            chosen,
            "layer_filter_preset",
            label="Layer Filter",
            open=partial(
                block_learning_rate_window.open_block_learning_rate_window, page
            ),
            why_not=lambda: block_learning_rate_window.why_not_block_rates(session),
            holds=[KEY],
        )
        pattern = field(chosen, "layer_filter")
        regex = field(session, "layer_filter_regex")
        _shown_if(session, pattern, lambda: chosen.preset != "full")
        _shown_if(session, regex, lambda: chosen.preset == "custom")
        pattern = page.controls["layer_filter"]
        watched(
            session.changed,
            lambda: pattern.props.set_optional(
                "readonly", chosen.preset != "custom" or None
            ),
        )
        _matches(session)
        sparkline(page)
        with ui.element("div").classes("banner") as stays:
            ui.label('Block rates stay in effect; choose "blocks" to edit them.')
            with ui.element("button").props("type=button").classes("link") as reset:
                ui.label("Reset")
        reset.on("click", lambda: session.set({KEY: {}}))
        _shown_if(
            session,
            stays,
            lambda: chosen.preset != "blocks" and _rates_are_used(session),
        )


def _matches(session: Session) -> None:
    """How many layers the filter matches, and on request which."""
    with ui.expansion().classes("fold matches") as fold:
        names = ui.label().classes("mono layer-names")

    def refresh() -> None:
        found: tuple[str, ...] = ()
        filter_now = {path: session.get(path) for path in _FILTER}
        try:
            found, count = matching_layers(session.usable.model_copy(update=filter_now))
            fold.text = f"Matches {len(found):,} of {count:,} layers"
        except FileError:
            fold.text = "Choose a model to see which layers match"
        except (ConfigError, AttributeError, TypeError):  # values of a wrong type, too
            fold.text = "Correct the filter to see which layers match"
        names.set_text("\n".join(found) if fold.value else "")

    fold.on_value_change(refresh)
    watched(session.changed, refresh)
