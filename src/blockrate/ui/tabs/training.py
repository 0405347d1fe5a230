"""The Training tab: how it learns, and which layers."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from nicegui import ui
from nicegui.element import Element

from blockrate.config.base_model import model_spec
from blockrate.config.fields import in_window
from blockrate.config.filter_meant import blocks_text
from blockrate.config.filtered import filter_warnings, matching_layers
from blockrate.core.errors import ConfigError, FileError
from blockrate.core.layer_filter import PRESETS, split_patterns
from blockrate.core.profile import KEY, sparse
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, field, options_adv, section
from blockrate.ui.parts.help import help_button
from blockrate.ui.parts.short_view import rarely_set
from blockrate.ui.session import Session
from blockrate.ui.windows import (
    optimizer_window,
    scheduler_window,
    timestep_window,
)
from blockrate.ui.windows.block_learning_rate_window import (
    open_block_learning_rate_window,
    why_no_window,
    why_not_block_rates,
)
from blockrate.ui.windows.sparkline import sparkline

# What stands in each card, in its order, two in a row.
_FIRST = (
    "learning_rate",
    "epochs",
    "batch_size",
)
_OPTIMISATION = (
    "learning_rate_warmup_steps",
    "gradient_accumulation_steps",
    "clip_grad_norm",
)
_IMAGES = (
    "train_dtype",
    "enable_autocast",
    "transformer.guidance_scale",
    "transformer.gradient_checkpointing",
    "transformer.layer_offload_fraction",
    "transformer.attention_backend",
)
_GPUS = (
    "multi_gpu",
    "device_indexes",
    "sharding",
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
)
_LORA_TOO = (
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
# The layer filter: its preset, its text, and how that is read.
_PRESET = "layer_filter_preset"
_PATTERNS = "layer_filter"
_REGEX = "layer_filter_regex"
_OWN = "own layer filter"  # what is remembered of it while a preset is chosen


def build(page: Page) -> None:
    """Lay out the tab."""
    session = page.session
    with ui.element("div").classes("stack"):
        _optimisation(page)
        with section("Images and precision"):
            field(session, "resolution", classes="half")
            with rarely_set(page):
                for path in _IMAGES:
                    field(session, path, classes="half")
        with rarely_set(page):
            with section("GPUs"):
                _rows(session, _GPUS)
            with section("Moving average of the weights"):
                _rows(session, _EMA)
            _fold(session, "Loss", _LOSS)
    with ui.element("div").classes("stack"):
        _layers(page)
        with section("LoRA") as lora:
            _rows(session, _LORA)
            with rarely_set(page):
                _rows(session, _LORA_TOO)
                field(session, "lora_model_name")
        _shown_if(session, lora, lambda: session.get("training_method") != "FINE_TUNE")
        with rarely_set(page):
            with section("Transformer"):
                _rows(session, _TRANSFORMER)
            _fold(session, "Saving and reports", _SAVING)


def _fold(session: Session, title: str, paths: Sequence[str]) -> None:
    with (
        ui.expansion(title).classes("card fold"),
        ui.element("div").classes("card-body"),
    ):
        with ui.element("div"):
            help_button(title)
        _rows(session, paths)


def _rows(session: Session, paths: Sequence[str]) -> None:
    """Two fields in a row; of an odd number the first has a row of its own."""
    alone = paths[: len(paths) % 2]
    for path in paths:
        field(session, path, classes="" if path in alone else "half")


def _shown_if(session: Session, element: Element, wanted: Callable[[], bool]) -> None:
    with element:
        call_on_change(session.changed, lambda: element.set_visibility(wanted()))


def _rates_are_used(session: Session) -> bool:
    rates = session.get(KEY)
    return isinstance(rates, dict) and bool(sparse(rates))


def _optimisation(page: Page) -> None:
    session = page.session
    with section("Optimisation"):
        _what_is_set_first(page)
        banner = ui.label().classes("banner")
        with rarely_set(page):
            _how_it_is_optimised(page)
        _follow_refusal(session, banner)


def _what_is_set_first(page: Page) -> None:
    """Rate and epochs, larger than all else, and how many steps these are."""
    with ui.element("div").classes("set-first"):
        for path in _FIRST:
            field(page.session, path)
    told = ui.label().classes("facts").props("aria-live=polite")

    def refresh() -> None:
        told.set_text(f"About {page.steps:,} steps" if page.steps else "")
        told.set_visibility(bool(page.steps))

    call_on_change(page.steps_changed, refresh)


def _how_it_is_optimised(page: Page) -> None:
    """Optimizer, scheduler and noise levels."""
    session = page.session
    options_adv(
        session,
        "optimizer.optimizer",
        label="Optimizer",
        open=partial(optimizer_window.open_optimizer_window, page),
        holds=in_window("Optimizer"),
    )
    options_adv(
        session,
        "learning_rate_scheduler",
        label="Learning Rate Scheduler",
        open=partial(scheduler_window.open_scheduler_window, page),
        holds=scheduler_window.PATHS,
    )
    _rows(session, _OPTIMISATION)
    options_adv(
        session,
        "timestep_distribution",
        label="Timestep Distribution",
        open=partial(timestep_window.open_timestep_window, page),
        holds=timestep_window.PATHS,
    )


def _follow_refusal(session: Session, banner: ui.label) -> None:
    """Say in a banner if the optimizer takes no block rates, unless its field says so."""

    def refresh() -> None:
        refusal = ""
        if _rates_are_used(session) and not session.problem("optimizer.optimizer"):
            refusal = optimizer_window.why_not_differing_rates(session)
        optimizer_window.set_banner(banner, refusal)

    call_on_change(session.changed, refresh)


class LayerChoice:
    """The layer filter as one choice: a preset, or the user's own text, which is kept while a preset is chosen."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.changed = session.changed
        self.problem = session.problem

    @property
    def preset(self) -> str:
        """The choice that is in effect: a text of its own wins over a preset."""
        preset = str(self.session.get(_PRESET) or "")
        written = split_patterns(str(self.session.get(_PATTERNS) or ""))
        if written and written != PRESETS.get(preset):
            return "custom"
        return preset

    def get(self, path: str) -> Any:
        """Return what is in effect."""
        if path == _PRESET:
            return self.preset
        return self.session.get(path) or _patterns_of(self.preset)

    def set(self, values: Mapping[str, Any]) -> None:
        """Write the preset with its text, so that every trainer that reads the file does the same."""
        # who edits the text keeps it, even where it is that of a preset
        preset = values.get(_PRESET, "custom")
        own = {_PATTERNS: self.get(_PATTERNS), _REGEX: self.session.get(_REGEX)}
        if self.preset == "custom":
            self.session.remember(_OWN, own)
        text = {_PATTERNS: _patterns_of(preset), _REGEX: False}
        if preset == "custom":
            text = self.session.remembered(_OWN) or own
        self.session.set({_PRESET: preset, **text, **values})


def _patterns_of(preset: str) -> str:
    return ",".join(PRESETS.get(preset, ()))


def _layers(page: Page) -> None:
    session = page.session
    choice = LayerChoice(session)
    with section("Layers to train"):
        options_adv(
            choice,
            _PRESET,
            label="Layer Filter",
            open=partial(open_block_learning_rate_window, page),
            why_not=lambda: why_not_block_rates(session),
            holds=[KEY],
        )
        patterns = field(choice, _PATTERNS)
        regex = field(session, _REGEX)
        _shown_if(session, patterns, lambda: choice.preset != "full")
        _shown_if(session, regex, lambda: choice.preset == "custom")
        control = page.controls[_PATTERNS]

        def lock() -> None:
            locked = True if choice.preset != "custom" else None
            control.props.set_optional("readonly", locked)

        call_on_change(session.changed, lock)
        _matches(session)
        sparkline(page)
        _rates_stay(session, choice)


def _rates_stay(session: Session, choice: LayerChoice) -> None:
    """Say that block rates stay in effect while another filter is chosen, with two ways on."""
    with ui.element("div").classes("banner") as banner:
        words = ui.label()
        with ui.element("button").props("type=button").classes("link") as reset:
            ui.label("Reset")
    reset.on("click", lambda: session.set({KEY: {}}))

    def wanted() -> bool:
        can_be_drawn = not why_no_window(session)
        way = "; press their picture to edit them." if can_be_drawn else "."
        words.set_text(f"Block rates stay in effect{way}")
        return choice.preset != "blocks" and _rates_are_used(session)

    _shown_if(session, banner, wanted)


def _matches(session: Session) -> None:
    """How many layers the filter matches and in which blocks, what it takes beyond that, and on request which."""
    with ui.expansion().classes("fold matches") as fold:
        names = ui.label().classes("mono layer-names")
        names.props('tabindex=0 role=region aria-label="Layers that match"')
    note = ui.label().classes("field-note").props("role=status")

    def refresh() -> None:
        matching: tuple[str, ...] = ()
        words = ""
        layer_filter = {
            path: session.get(path) for path in (_PRESET, _PATTERNS, _REGEX)
        }
        config = session.usable.model_copy(update=layer_filter)
        try:
            matching, count = matching_layers(config)
            spec = model_spec(config)
            fold.text = f"Matches {len(matching):,} of {count:,} layers"
            if len(matching) < count:
                fold.text += f": {blocks_text(matching, spec)}"
            if matching:
                words = "\n".join(filter_warnings(config, spec))
        except FileError:
            fold.text = "Choose a model to see which layers match"
        except (ConfigError, AttributeError, TypeError):  # values of a wrong type, too
            fold.text = "Correct the filter to see which layers match"
        names.set_text("\n".join(matching) if fold.value else "")
        note.set_text(words)
        note.set_visibility(bool(words))

    fold.on_value_change(refresh)
    call_on_change(session.changed, refresh)
