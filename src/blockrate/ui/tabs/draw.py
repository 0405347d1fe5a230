"""The Draw tab: pictures by what was trained, its blocks switched off or scaled, and two of them beside each other."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nicegui import ui
from nicegui.run import io_bound

from blockrate.config.base_model import model_spec, trained_name
from blockrate.config.drawing import Drawn, read_drawing, takes_negative_prompt
from blockrate.config.gallery import sample_of
from blockrate.config.parts import Sample
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import BlockrateError
from blockrate.core.plain_text import visible
from blockrate.core.profile import sparse
from blockrate.models.families import DEFAULT_FAMILY
from blockrate.run.drawing import Origin, origin_of
from blockrate.ui.live.drawn import DrawnCard
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, section
from blockrate.ui.parts.dialogs import icon_button
from blockrate.ui.parts.labels import in_labels
from blockrate.ui.parts.picker import pick
from blockrate.ui.windows.block_mixer import BlockMixer
from blockrate.ui.windows.rate_tools import RateTools
from blockrate.ui.windows.rates import RatesDraft

_LOOK = "outlined dense hide-bottom-space no-error-icon"
# by the name in a drawing: label, step
_NUMBERS: Mapping[str, tuple[str, float]] = {
    "width": ("Width", 16),
    "height": ("Height", 16),
    "seed": ("Seed", 1),
    "diffusion_steps": ("Steps", 1),
    "cfg_scale": ("Guidance", 0.1),
}
_WHOLE = ("width", "height", "seed", "diffusion_steps")


def build(page: Page) -> None:
    """Lay out the tab."""
    leave = page.watch.playground.enter()
    ui.context.client.on_delete(leave)
    Draw(page)


class Draw:
    """What is drawn from, what is to be drawn, and what was."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._origin: Origin | None = None
        self._rates = RatesDraft(_layout(page), {})
        # a picture of this model whose settings were taken over
        self._taken: dict[str, Any] = {}
        self._model = ""
        with ui.element("div").classes("stack"):
            with section("Drawn from"):
                self._build_from()
            with section("Picture"):
                self._build_picture()
        with ui.element("div").classes("stack"), section("Pictures") as card:
            card.classes("drawn-card")
            DrawnCard(page, self._use)
        with ui.element("div").classes("wide"), section("What each block has of it"):
            self._blocks = ui.element("div").classes("draw-blocks")
            self._build_blocks()
        self.draw_from(_finished(page))
        call_on_change(page.tab_changed, self._take_asked)

    # -- what is drawn from

    def _build_from(self) -> None:
        self._from = ui.input("Run, checkpoint, LoRA file or model")
        self._from.props(f"{_LOOK} spellcheck=false autocomplete=off")
        self._from.on("change", self._look_at_origin)
        with self._from.add_slot("append"):
            icon_button("folder_open", "Choose what to draw from", self._choose)
        self._told = ui.label().classes("dim")
        with ui.element("div").classes("draw-numbers"):
            self._strength = ui.number("Strength", value=1, step=0.05).props(_LOOK)

    async def _choose(self) -> None:
        start = str(self._from.value or "")
        suffixes = (".safetensors",)
        chosen = await pick(self._page, kind="either", suffixes=suffixes, start=start)
        if chosen:
            self.draw_from(chosen)

    def _take_asked(self) -> None:
        """Draw from what was chosen on another tab."""
        if self._page.asked_to_draw and self._page.tab == "Draw":
            self.draw_from(self._page.asked_to_draw)
            self._page.asked_to_draw = ""

    def draw_from(self, path: str) -> None:
        """Draw from here from now on."""
        self._from.set_value(path)
        self._look_at_origin()

    def _look_at_origin(self) -> None:
        """Find out what the path leads to, and have faders for its blocks."""
        self._origin = None
        self._from.error = None
        path = str(self._from.value or "").strip()
        if not path:
            self._told.set_text("Without one the open config's model draws alone.")
            self._origin = Origin(self._page.session.usable)
        else:
            try:
                self._origin = origin_of(Path(path), self._page.session.usable)
                self._told.set_text(_origin_in_words(self._origin))
            except (BlockrateError, OSError) as error:
                self._from.error = visible(str(error))
                self._told.set_text("")
                return
        self._fit_to_model()

    def _fit_to_model(self) -> None:
        origin = self._origin
        assert origin
        self._strength.set_visibility(bool(origin.lora))
        try:
            layout = model_spec(origin.config).layout
            takes = takes_negative_prompt(origin.config)
        except BlockrateError as error:
            self._from.error = visible(str(error))
            return
        self._negative.set_visibility(takes)
        if layout != self._rates.layout:
            self._rates = RatesDraft(layout, {})
            self._build_blocks()
        if trained_name(origin.config) != self._model:
            # another model may take no images, or others
            self._model = trained_name(origin.config)
            self._taken = {}
        sample = _first_sample(origin.config)
        if sample and not self._prompt.value:
            self._fill(sample)

    # -- the picture

    def _build_picture(self) -> None:
        self._prompt = ui.textarea("Prompt").props(f"{_LOOK} autogrow rows=2")
        self._negative = ui.input("Negative prompt").props(_LOOK)
        self._numbers: dict[str, ui.number] = {}
        with ui.element("div").classes("draw-numbers"):
            for name, (label, step) in _NUMBERS.items():
                number = ui.number(label, step=step)
                self._numbers[name] = number.props(_LOOK)
        self._fill(_usual(self._page))
        with ui.element("div").classes("draw-go"):
            self._wrong = ui.label().classes("field-note is-wrong").props("role=alert")
            button = ui.button("Draw", icon="brush", on_click=self._draw)
            button.props("no-caps unelevated")
        self._wrong.set_visibility(False)

    def _fill(self, values: Mapping[str, Any]) -> None:
        """Write settings into the fields that there are for them."""
        if "prompt" in values:
            self._prompt.set_value(values["prompt"])
        if "negative_prompt" in values:
            self._negative.set_value(values["negative_prompt"])
        for name, number in self._numbers.items():
            if name in values:
                number.set_value(values[name])

    def _values(self, origin: Origin) -> dict[str, Any]:
        """Return what is asked for, as it is written: what is wrong is told by who reads it."""
        # the images that a sample is made from, for which there are no fields
        values = {**(self._taken or _first_sample(origin.config)), "preview": ""}
        values["prompt"] = str(self._prompt.value or "")
        for name, number in self._numbers.items():
            value = number.value
            is_whole = name in _WHOLE and value is not None and value == int(value)
            values[name] = int(value) if is_whole else value
        if self._negative.visible:
            values["negative_prompt"] = str(self._negative.value or "")
        if origin.lora:
            values["lora"] = origin.lora
            values["strength"] = self._strength.value
            values["block_scale"] = sparse(self._rates.values)
        return values

    async def _draw(self) -> None:
        """Ask for the picture, or say what is wrong."""
        # the config may have changed since, or the file
        self._look_at_origin()
        problem = self._from.error or ""
        origin = self._origin
        if origin and not problem:
            problem = await self._ask(origin)
        self._wrong.set_text(visible(problem))
        self._wrong.set_visibility(bool(problem))

    async def _ask(self, origin: Origin) -> str:
        """Ask for the picture, and return what is wrong with that."""
        playground = self._page.watch.playground
        try:
            drawing = read_drawing(self._values(origin))
            await io_bound(playground.ask, origin, drawing)
        except (BlockrateError, OSError) as error:
            return in_labels(str(error))
        await self._page.watch.look_at_jobs()
        return ""

    def _use(self, drawn: Drawn) -> None:
        """Take the settings of a picture over."""
        self._draw_by_what_drew(drawn)
        values = drawn.drawing.model_dump()
        self._taken = {name: values[name] for name in Sample.model_fields}
        self._fill(values)
        self._strength.set_value(drawn.drawing.strength)
        self._rates.replace(dict(drawn.drawing.block_scale))
        self._mixer.show(said="Settings taken over")

    def _draw_by_what_drew(self, drawn: Drawn) -> None:
        """Draw from what a picture was drawn from, or say that its model is another one than the config's."""
        lora = drawn.drawing.lora
        now = self._origin
        # a run knows its model, which the file that it has made does not
        if now and (now.lora, trained_name(now.config)) == (lora, drawn.model):
            return
        own = trained_name(self._page.session.usable)
        self.draw_from(lora or ("" if drawn.model == own else drawn.model))
        found = self._origin
        if found and trained_name(found.config) != drawn.model:
            told = f"The picture was drawn by {drawn.model}: open its config first"
            self._from.error = visible(told)

    # -- its blocks

    def _build_blocks(self) -> None:
        self._blocks.clear()
        with self._blocks:
            ui.label(
                "1 is what was learned, 0 switches a block off. It changes the next picture, not the file."
            ).classes("dim")
            self._mixer = BlockMixer(
                self._rates,
                drawn=lambda: None,
                selected=lambda names: self._tools.show_selection(names),
                scales=True,
            )
            self._mixer.on("undo", lambda: self._tools.change(partial(self._step, -1)))
            self._mixer.on("redo", lambda: self._tools.change(partial(self._step, 1)))
            self._tools: RateTools = RateTools(
                self._page, self._rates, self._mixer, drawn=lambda: None
            )
            with ui.element("div"):
                reset = ui.button("All at 1", on_click=self._reset)
                reset.props("no-caps flat")

    def _step(self, by: int) -> str:
        self._rates.step(by)
        return "Undone" if by < 0 else "Redone"

    def _reset(self) -> None:
        def all_at_one() -> str:
            self._rates.replace({})
            return "All at 1"

        self._tools.change(all_at_one)


def _layout(page: Page) -> BlockLayout:
    """The blocks of the open config's model, of the usual one while none is chosen."""
    try:
        return model_spec(page.session.usable).layout
    except BlockrateError:
        return DEFAULT_FAMILY.spec.layout


def _usual(page: Page) -> dict[str, Any]:
    """Return how the open config draws, else how the makers of its model do."""
    config = page.session.usable
    usual = Sample().model_dump() | sample_of(config.base_model_name)
    return _first_sample(config) or usual


def _first_sample(config: TrainConfig) -> dict[str, Any]:
    """Return the first sample of a config that is made, nothing without one."""
    samples = [sample for sample in config.samples if sample.enabled]
    return samples[0].model_dump() if samples else {}


def _finished(page: Page) -> str:
    """Return the run that is shown, if there is something to draw from."""
    run = page.watch.run
    if run and page.watch.state.name == "Finished" and page.watch.history.files.outputs:
        return str(run.path)
    return ""


def _origin_in_words(origin: Origin) -> str:
    model = visible(
        origin.config.transformer.model_name or origin.config.base_model_name
    )
    if not origin.lora:
        return f"The model {model}, as it is."
    return f"{visible(Path(origin.lora).name)} on {model}."
