"""The samples of a run by prompt and step, and one of them large: arrow keys go to other steps and prompts."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nicegui import ui

from blockrate.core.errors import ConfigError
from blockrate.core.plain_text import visible
from blockrate.ui.page import Page
from blockrate.ui.parts.components import set_props
from blockrate.ui.parts.dialogs import choice_buttons, small_dialog

# key, words of the button, by how many prompts, by how many pictures of the prompt
_MOVES = (
    ("left", "Earlier step", 0, -1),
    ("right", "Later step", 0, 1),
    ("up", "Prompt before", -1, 0),
    ("down", "Next prompt", 1, 0),
)


class Picture(NamedTuple):
    """A sample, and after which step."""

    step: int
    path: Path


def by_prompt(
    samples: Mapping[int, Sequence[str]], folder: Path
) -> dict[str, list[Picture]]:
    """The pictures by the number and the words of their prompt, which are in their names."""
    pictures: dict[str, list[Picture]] = {}
    for step, files in samples.items():
        for file in files:  # step-00000075-0-a-photo-of-a-cat.png
            prompt = re.sub(r"^step-\d+-", "", Path(file).stem)
            pictures.setdefault(prompt, []).append(Picture(step, folder / file))
    return pictures


def words_of(prompt: str) -> str:
    """A prompt as it stands in the name of a file."""
    return visible(prompt.partition("-")[2].replace("-", " "))


class Viewer:
    """One sample, as large as the window lets it be."""

    def __init__(self, page: Page, prompt: str, step: int) -> None:
        self._page = page
        self._prompt = prompt
        self._step = step
        with small_dialog("Sample", "sample-view") as self._dialog:
            self._image = ui.element("img")
            self._words = ui.label().props("aria-live=polite")
            moves = {words: self._mover(p, s) for _, words, p, s in _MOVES}
            buttons = choice_buttons({**moves, "Close": self._dialog.close})
            self._buttons = [buttons[words] for _, words, _, _ in _MOVES]
        for key, _, prompts, steps in _MOVES:
            self._dialog.on(f"keydown.{key}.prevent", self._mover(prompts, steps))
        self._show()
        self._dialog.open()

    def _mover(self, prompts: int, steps: int) -> Callable[[], None]:
        return partial(self._move, prompts, steps)

    def _pictures(self) -> dict[str, list[Picture]]:
        """All that the run has drawn by now, steps in order."""
        run = self._page.watch.run
        samples = self._page.watch.history.files.samples
        in_order = {step: samples[step] for step in sorted(samples)}
        return by_prompt(in_order, run.path if run else Path())

    def _move(self, prompts: int, steps: int) -> None:
        if target := self._beside(prompts, steps):
            self._prompt, self._step = target
            self._show()

    def _beside(self, prompts: int, steps: int) -> tuple[str, int] | None:
        """The prompt and step so far away, None where there is none; of another prompt the same step if it has it."""
        pictures = self._pictures()
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
        for picture in self._pictures().get(self._prompt, ()):
            if picture.step == self._step:
                self._draw(picture)
        for button, (_, _, prompts, steps) in zip(self._buttons, _MOVES, strict=True):
            is_last = self._beside(prompts, steps) is None
            # not disabled for real: it would lose the focus, and the keys with it
            set_props(button, {"aria-disabled": "true" if is_last else None})

    def _draw(self, picture: Picture) -> None:
        words = f"{words_of(self._prompt)}, step {picture.step:,}"
        try:
            source = self._page.media.file_url(picture.path)
        except ConfigError as error:  # a link leads out of the folders meanwhile
            self._words.set_text(visible(str(error)))
            return
        set_props(self._image, {"src": source, "alt": words})
        self._words.set_text(words)
