"""One sample large, with what drew it, and over it that of another step: arrow keys go to other steps and prompts."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nicegui import ui

from blockrate.core.errors import ConfigError
from blockrate.core.plain_text import visible
from blockrate.ui.live.samples import (
    DrawnBy,
    Picture,
    by_prompt,
    drawn_by,
    words_of,
)
from blockrate.ui.page import Page
from blockrate.ui.parts.components import set_props
from blockrate.ui.parts.dialogs import choice_buttons, small_dialog
from blockrate.ui.parts.pictures import Pictures, Shown

# key, words of the button, by how many prompts, by how many pictures of the prompt
_MOVES = (
    ("left", "Earlier step", 0, -1),
    ("right", "Later step", 0, 1),
    ("up", "Prompt before", -1, 0),
    ("down", "Next prompt", 1, 0),
)
_KEPT = "(event) => event.stopPropagation()"


class ComparedStep:
    """A choice of the step to compare with. ``step``: None for none."""

    def __init__(
        self, steps: Callable[[], Sequence[int]], on_change: Callable[[], object]
    ) -> None:
        self._steps = steps
        self._shown: list[int] = []
        self._choice = ui.select({"": "Nothing"}, value="", label="Compare with")
        self._choice.props("outlined dense options-dense hide-bottom-space")
        self._choice.props("popup-content-class=options").classes("compare-with")
        self._choice.on("update:model-value", on_change)
        # its own arrow keys are not those of a dialog
        for key in ("left", "right", "up", "down"):
            self._choice.on(f"keydown.{key}", js_handler=_KEPT)

    @property
    def step(self) -> int | None:
        """The step that was chosen, while there is one."""
        value = str(self._choice.value or "")
        step = int(value) if value.isdecimal() else None
        return step if step in self._steps() else None

    def choose(self, step: int | None) -> None:
        """Have a step chosen, or none."""
        self.refresh()
        self._choice.set_value("" if step is None else str(step))

    def refresh(self) -> None:
        """Offer the steps that there are."""
        steps = list(self._steps())
        if steps != self._shown:
            self._shown = steps
            value = "" if self.step is None else self._choice.value
            options = {str(step): f"Step {step:,}" for step in steps}
            self._choice.set_options({"": "Nothing", **options}, value=value)


class Viewer:
    """One sample, as large as the window lets it be. ``other``: the step to compare with."""

    def __init__(
        self, page: Page, prompt: str, step: int, other: int | None = None
    ) -> None:
        self._page = page
        self._prompt = prompt
        self._step = step
        with small_dialog("Sample", "sample-view") as self._dialog:
            self._pictures = Pictures()
            with ui.element("div").classes("sample-words"):
                self._words = ui.label().props("aria-live=polite")
                self._facts = ui.label().classes("dim")
            self._other = ComparedStep(self._steps, self._show)
            moves = {words: self._mover(p, s) for _, words, p, s in _MOVES}
            buttons = choice_buttons({**moves, "Close": self._dialog.close})
            self._buttons = [buttons[words] for _, words, _, _ in _MOVES]
        for key, _, prompts, steps in _MOVES:
            self._dialog.on(f"keydown.{key}.prevent", self._mover(prompts, steps))
        self._other.choose(other)
        self._show()
        self._dialog.open()

    def _mover(self, prompts: int, steps: int) -> Callable[[], None]:
        return partial(self._move, prompts, steps)

    def _drawn(self) -> dict[str, list[Picture]]:
        """All that the run has drawn by now, steps in order."""
        run = self._page.watch.run
        samples = self._page.watch.history.files.samples
        in_order = {step: samples[step] for step in sorted(samples)}
        return by_prompt(in_order, run.path if run else Path())

    def _steps(self) -> list[int]:
        """The steps after which the prompt was drawn."""
        return [picture.step for picture in self._drawn().get(self._prompt, ())]

    def _move(self, prompts: int, steps: int) -> None:
        if target := self._beside(prompts, steps):
            self._prompt, self._step = target
            self._show()

    def _beside(self, prompts: int, steps: int) -> tuple[str, int] | None:
        """The prompt and step so far away, None where there is none; of another prompt the same step if it has it."""
        pictures = self._drawn()
        names = list(pictures)
        if self._prompt not in names:
            return None
        place = names.index(self._prompt) + prompts
        if not 0 <= place < len(names):
            return None
        of_prompt = [picture.step for picture in pictures[names[place]]]
        nearest = min(of_prompt, key=lambda step: abs(step - self._step))
        number = of_prompt.index(nearest) + steps
        if not 0 <= number < len(of_prompt):
            return None
        return names[place], of_prompt[number]

    def _show(self) -> None:
        self._other.refresh()
        of_prompt = {p.step: p for p in self._drawn().get(self._prompt, ())}
        other = self._other.step
        if self._step in of_prompt:
            beside = None if other in (None, self._step) else of_prompt.get(other or 0)
            self._draw(of_prompt[self._step], beside)
        for button, (_, _, prompts, steps) in zip(self._buttons, _MOVES, strict=True):
            is_last = self._beside(prompts, steps) is None
            # not disabled for real: it would lose the focus, and the keys with it
            set_props(button, {"aria-disabled": "true" if is_last else None})

    def _draw(self, picture: Picture, other: Picture | None) -> None:
        """Show a picture, and on the left of it the other one."""
        try:
            shown = self._shown(picture)
            left = self._shown(other) if other else None
        except ConfigError as error:  # a link leads out of the folders meanwhile
            self._words.set_text(visible(str(error)))
            self._facts.set_text("")
            return
        if left:
            self._pictures.show(left, shown)
        else:
            self._pictures.show(shown)
        by = drawn_by(picture.path) or DrawnBy()
        self._words.set_text(by.prompt or words_of(self._prompt))
        seed = f"seed {by.seed}" if by.seed else ""
        steps = f"step {picture.step:,}"
        if other:
            steps = (
                f"step {other.step:,} on the left, step {picture.step:,} on the right"
            )
        facts = " · ".join(filter(None, (steps, seed, by.rest)))
        self._facts.set_text(facts[0].upper() + facts[1:])

    def _shown(self, picture: Picture) -> Shown:
        words = f"{words_of(self._prompt)}, step {picture.step:,}"
        return Shown(self._page.media.file_url(picture.path), words)
