"""What was drawn: what the model does, every picture with its settings, one large, two with a slider between."""

from collections.abc import Callable, Sequence
from functools import partial

from nicegui import Event, ui

from blockrate.config.drawing import Drawing, Drawn
from blockrate.core.errors import ConfigError
from blockrate.core.plain_text import visible
from blockrate.ui.live.playground import Easels, Playground
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, set_props
from blockrate.ui.parts.dialogs import choice_buttons, small_dialog
from blockrate.ui.parts.follow import pager, rebuild_on_change
from blockrate.ui.parts.labels import in_labels, sentence
from blockrate.ui.parts.pictures import Pictures, Shown

_PIXELS = 480
_A_PAGE = 24
Use = Callable[[Drawn], object]


class DrawnCard:
    """The pictures, newest first, and which of them are compared. ``use``: takes the settings of one over."""

    def __init__(self, page: Page, use: Use) -> None:
        self._page = page
        self._use = use
        self._playground: Playground = page.watch.playground
        self._changed = Event[[]]()
        self._chosen: list[str] = []
        self._first = 0
        with ui.element("div").classes("draw-state"):
            self._state = ui.label().props("aria-live=polite")
            self._bar = ui.element("progress").props('max=1 aria-label="This picture"')
            self._drop = ui.button("Draw no more", on_click=self._withdraw)
            self._let_go = ui.button("Let go of the model", on_click=self._leave)
            self._compare = ui.button("Compare the two", on_click=self._show_two)
            for button in (self._drop, self._let_go, self._compare):
                button.props("no-caps flat dense")
        with ui.element("ul").classes("drawn"):
            rebuild_on_change(self._changed, self._shown, self._rows)
        with ui.element("div").classes("pager"):
            rebuild_on_change(self._changed, self._numbers, self._show_pager)
        call_on_change(page.watch.changed, self._follow)
        call_on_change(page.tab_changed, self._follow)

    # -- what the model does

    def _follow(self) -> None:
        if self._page.tab != "Draw":
            return
        seen = self._playground.seen
        self._state.set_text(state_in_words(seen))
        phase = seen.doing
        is_drawing = bool(phase and phase.name == "sampling" and phase.total)
        self._bar.set_visibility(is_drawing)
        if phase and is_drawing:
            set_props(self._bar, {"value": phase.done / phase.total})
        self._drop.set_visibility(bool(seen.waiting))
        self._let_go.set_visibility(seen.is_loaded and not seen.waiting)
        self._changed.emit()
        self._compare.set_visibility(len(self._chosen) == 2)

    async def _withdraw(self) -> None:
        self._playground.withdraw_all()
        await self._page.watch.look_at_jobs()

    async def _leave(self) -> None:
        self._playground.let_go()
        await self._page.watch.look_at_jobs()

    # -- the pictures

    def _shown(self) -> Sequence[Drawn]:
        return self._playground.seen.drawn[self._first : self._first + _A_PAGE]

    def _numbers(self) -> tuple[int, int]:
        return self._first, len(self._playground.seen.drawn)

    def _show_pager(self, numbers: tuple[int, int]) -> None:
        first, count = numbers
        pager("pictures", first, count, _A_PAGE, self._go_to)

    def _go_to(self, first: int) -> None:
        self._first = first
        self._follow()

    def _rows(self, drawn: Sequence[Drawn]) -> None:
        if not drawn:
            with ui.element("li"):
                ui.label("No pictures yet.").classes("dim")
        try:
            for picture in drawn:
                with ui.element("li"):
                    self._row(picture)
        except ConfigError as error:  # outside the roots
            text = f"The pictures cannot be shown: {error.problem}. {error.cure}"
            with ui.element("li"):
                ui.label(visible(text)).classes("field-note")

    def _row(self, picture: Drawn) -> None:
        words = facts_of(picture.drawing)
        if picture.problem:
            ui.label(visible(in_labels(picture.problem))).classes("banner")
        else:
            self._image(picture, words)
        ui.label(visible(picture.drawing.prompt)).classes("drawn-prompt")
        ui.label(words).classes("dim")
        with ui.element("div").classes("drawn-buttons"):
            use = ui.button("Use its settings", on_click=partial(self._use, picture))
            use.props("no-caps flat dense")
            if not picture.problem:
                box = ui.checkbox("Compare", value=picture.id in self._chosen)
                box.on_value_change(partial(self._choose, picture.id))

    def _image(self, picture: Drawn, words: str) -> None:
        path = self._playground.easel.pictures / picture.file
        source = self._page.media.file_url(path, size=_PIXELS)
        with ui.element("button").props("type=button").classes("drawn-image") as frame:
            image = ui.element("img")
        alt = f"{visible(picture.drawing.prompt)}, {words}"
        image.props.update({"src": source, "alt": alt, "loading": "lazy"})
        frame.on("click", partial(self._show_large, picture), [])

    def _choose(self, picture: str) -> None:
        """Compare this picture, or no longer; of three the first is let go."""
        if picture in self._chosen:
            self._chosen.remove(picture)
        else:
            self._chosen.append(picture)
            if len(self._chosen) > 2:
                del self._chosen[0]
        self._compare.set_visibility(len(self._chosen) == 2)

    def _show_large(self, picture: Drawn) -> None:
        self._show([picture])

    def _show_two(self) -> None:
        by_id = {drawn.id: drawn for drawn in self._playground.seen.drawn}
        self._show([by_id[name] for name in self._chosen if name in by_id])

    def _show(self, pictures: Sequence[Drawn]) -> None:
        """Show one or two large, with what is different between them."""
        with small_dialog("Picture", "sample-view") as dialog:
            stage = Pictures()
            with ui.element("div").classes("sample-words"):
                for side, picture in zip(("Left", "Right"), pictures, strict=False):
                    words = facts_of(picture.drawing)
                    prompt = visible(picture.drawing.prompt)
                    ui.label(f"{side}: {words}" if len(pictures) > 1 else prompt)
                    ui.label(prompt if len(pictures) > 1 else words).classes("dim")
            choice_buttons({"Close": dialog.close})
        try:
            stage.show(*(self._large(picture) for picture in pictures))
        except ConfigError as error:  # a link leads out of the folders meanwhile
            self._page.show_message(str(error), kind="error")
        dialog.open()

    def _large(self, picture: Drawn) -> Shown:
        path = self._playground.easel.pictures / picture.file
        return Shown(self._page.media.file_url(path), facts_of(picture.drawing))


def facts_of(drawing: Drawing) -> str:
    """Return what tells a picture from others of the same prompt, in words."""
    facts = [f"seed {drawing.seed}", f"{drawing.diffusion_steps} steps"]
    if drawing.lora:
        facts.append(f"strength {drawing.strength:g}")
    off = [name for name, scale in drawing.block_scale.items() if not scale]
    scaled = len(drawing.block_scale) - len(off)
    if off:
        names = ", ".join(name.replace("_block_", " ") for name in off[:3])
        facts.append(f"{names} off" if len(off) <= 3 else f"{len(off)} blocks off")
    if scaled:
        facts.append(f"{scaled} {'block' if scaled == 1 else 'blocks'} scaled")
    images = len(drawing.references) + bool(drawing.base_image_path)
    if images:
        facts.append(f"from {images} {'image' if images == 1 else 'images'}")
    if drawing.negative_prompt:
        facts.append(f"away from {visible(drawing.negative_prompt)[:60]}")
    return " · ".join(facts)


def state_in_words(seen: Easels) -> str:
    """Return what the model that draws does."""
    count = len(seen.waiting)
    wait = f"{count} {'picture waits' if count == 1 else 'pictures wait'}"
    if seen.problem:
        return f"{wait}: {visible(seen.problem)}"
    if seen.training and count:
        return f"{wait} until the run at work has ended: both need the memory."
    if seen.training:
        return "A run is at work: what you ask for waits until it has ended."
    phase = seen.doing
    if not seen.is_loaded:
        if count:
            return f"{wait}: the process is starting."
        return _ended(seen)
    if seen.state.name == "Stopping":
        return "The model is being let go."
    if phase is None or phase.name in ("loading", "caching", "starting"):
        what = "Encoding the prompt" if phase and phase.name == "caching" else "Loading"
        return f"{what}: the first picture takes longer."
    if phase.name == "waiting" or not count:
        return (
            "The model is loaded for the next picture. It is let go after five minutes."
        )
    more = f" · {count - 1} more" if count > 1 else ""
    return f"Step {phase.done} of {phase.total}{more}"


def _ended(seen: Easels) -> str:
    if seen.state.name in ("Failed", "Lost"):
        return sentence(in_labels(visible(seen.state.sentence)))
    return "No model is loaded."
