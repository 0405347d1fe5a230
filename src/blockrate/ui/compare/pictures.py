"""Samples of compared runs: the same step, prompt and seed beside each other, and a line to move between two."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nicegui import Event, ui

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.core.plain_text import visible
from blockrate.ui.compare.chosen import names_of
from blockrate.ui.compare.readings import Reading, Readings
from blockrate.ui.live.charts import slider
from blockrate.ui.live.samples import by_prompt, words_of
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, section, set_props
from blockrate.ui.parts.follow import rebuild_on_change
from blockrate.ui.parts.pictures import Pictures, Shown

_PIXELS = 768  # of a picture in the row
_LOOK = "outlined dense hide-bottom-space options-dense popup-content-class=options"
_WITHOUT_EMA = "-without-ema"  # in the name of a prompt
_NONE = (
    "No two of these runs have drawn a sample of the same prompt and seed. "
    "What stands on the Sampling tab when a run starts is drawn by it."
)


class Subject(NamedTuple):
    """What a sample shows, and the seed of its noise, which runs that are compared have in common."""

    words: str
    seed: str

    @property
    def label(self) -> str:
        """In a line."""
        return f"{self.words} · seed {self.seed}" if self.seed else self.words


class Seen(NamedTuple):
    """The pictures of a step by the place of their run, and which two the line lies between."""

    subject: Subject
    step: int
    pictures: tuple[tuple[int, Path], ...]
    names: tuple[str, ...]
    pair: tuple[int, int]

    def words(self, place: int) -> str:
        """What the picture of a run shows."""
        return f"{self.subject.words}, step {self.step:,}, {self.names[place]}"


class SamplesBeside:
    """The card of samples."""

    def __init__(self, page: Page, readings: Readings) -> None:
        self._readings = readings
        self._changed = Event[[]]()
        self._subject: Subject | None = None
        self._step: int | None = None  # None: the last that all have in common
        with ui.element("div").classes("wide"), section("Samples"):
            self._none = ui.label(_NONE)
            with ui.element("div") as self._body:
                self._choices()
                with ui.element("div"):
                    show = partial(_pictures, page)
                    rebuild_on_change(self._changed, self._seen, show)
        call_on_change(readings.changed, self._refresh)

    def _choices(self) -> None:
        with ui.element("div").classes("chart-choices"):
            self._prompt = ui.select([], label="Prompt", on_change=self._take)
            self._label = ui.label()
            self._slider = slider("Step of the samples", 0, 0, self._look_at)
            self._left = ui.select({}, label="Left of the line", on_change=self._take)
            self._right = ui.select({}, label="Right of the line", on_change=self._take)
        for control in (self._prompt, self._left, self._right):
            control.props(_LOOK).classes("compare-select")

    def _subjects(self) -> dict[Subject, list[dict[int, Path]]]:
        """Return what at least two runs have drawn, with the pictures of each run by step."""
        drawn = [_drawn(reading) for reading in self._readings.all]
        every = dict.fromkeys(subject for one in drawn for subject in one)
        return {
            subject: [one.get(subject, {}) for one in drawn]
            for subject in every
            if sum(subject in one for one in drawn) > 1
        }

    def _refresh(self) -> None:
        subjects = self._subjects()
        self._none.set_visibility(not subjects)
        self._body.set_visibility(bool(subjects))
        if not subjects:
            return
        if self._subject not in subjects:
            self._subject = next(iter(subjects))
            self._step = None
        labels = [subject.label for subject in subjects]
        if self._prompt.options != labels or self._prompt.value not in labels:
            self._prompt.set_options(labels, value=self._subject.label)
        self._offer_runs()
        self._show_step(subjects)
        self._changed.emit()

    def _offer_runs(self) -> None:
        names = dict(enumerate(self._names()))
        for place, control in enumerate((self._left, self._right)):
            if control.options != names:
                kept = control.value if control.value in names else place
                control.set_options(names, value=kept)

    def _names(self) -> list[str]:
        return names_of([reading.path for reading in self._readings.all])

    def _steps(self) -> list[int]:
        """The steps after which two runs, at least, have drawn what is looked at."""
        pictures = self._subjects().get(self._subject or Subject("", ""), [])
        steps = sorted({step for one in pictures for step in one})
        together = [step for step in steps if sum(step in one for one in pictures) > 1]
        return together or steps

    def _show_step(self, subjects: Mapping[Subject, object]) -> None:
        steps = self._steps()
        step = self._chosen_step(steps)
        self._label.set_text(f"Step {step:,}")
        props = {
            "max": len(steps) - 1,
            "value": steps.index(step),
            "aria-valuetext": f"Step {step:,}",
        }
        set_props(self._slider, props)

    def _chosen_step(self, steps: Sequence[int]) -> int:
        step = self._step
        return step if step is not None and step in steps else steps[-1]

    def _look_at(self, number: int) -> None:
        self._step = self._steps()[number]
        self._refresh()

    def _take(self) -> None:
        named = {subject.label: subject for subject in self._subjects()}
        self._subject = named.get(str(self._prompt.value), self._subject)
        self._refresh()

    def _seen(self) -> Seen | None:
        steps = self._steps()
        if self._subject is None or not steps:
            return None
        step = self._chosen_step(steps)
        pictures = self._subjects()[self._subject]
        there = tuple(
            (place, one[step]) for place, one in enumerate(pictures) if step in one
        )
        pair = (int(self._left.value or 0), int(self._right.value or 0))
        return Seen(self._subject, step, there, tuple(self._names()), pair)


def _drawn(reading: Reading) -> dict[Subject, dict[int, Path]]:
    """Return the pictures of a run by what they show, and by step."""
    samples = reading.history.files.samples
    drawn: dict[Subject, dict[int, Path]] = {}
    for name, pictures in by_prompt(samples, reading.path).items():
        subject = subject_of(name, reading.history.config)
        drawn.setdefault(subject, {}).update(
            {picture.step: picture.path for picture in pictures}
        )
    return drawn


def subject_of(name: str, config: TrainConfig | None) -> Subject:
    """Return what a picture of this name shows, as the config says it, else as the name does."""
    number = re.match(r"(\d{1,6})-", name)
    enabled = [sample for sample in config.samples if sample.enabled] if config else []
    if number and int(number[1]) < len(enabled):
        sample = enabled[int(number[1])]
        own = f"{number[0]}{sample.file_words}"
        words = visible(sample.prompt) or words_of(name)
        # else it was drawn when the run had other samples
        if name == own:
            return Subject(words, str(sample.seed))
        if name == own + _WITHOUT_EMA:
            return Subject(f"{words} (without EMA)", str(sample.seed))
    return Subject(words_of(name) or visible(name), "")


def _pictures(page: Page, seen: Seen | None) -> None:
    if seen is None:
        return
    try:
        _row(page, seen)
        _line_between(page, seen)
    except ConfigError as error:  # outside the roots
        text = f"The samples cannot be shown: {error.problem}. {error.cure}"
        ui.label(visible(text)).classes("field-note")


def _row(page: Page, seen: Seen) -> None:
    with ui.element("ul").classes("samples compare-samples"):
        for place, path in seen.pictures:
            with ui.element("li").classes(f"run{place}"):
                image = ui.element("img")
                source = page.media.file_url(path, size=_PIXELS)
                image.props.update(
                    {"src": source, "alt": seen.words(place), "loading": "lazy"}
                )
                with ui.element("div").classes("compared-title"):
                    sample = ui.element("i").classes("line-sample")
                    sample.props("aria-hidden=true")
                    ui.label(seen.names[place])


def _line_between(page: Page, seen: Seen) -> None:
    pictures = dict(seen.pictures)
    left, right = seen.pair
    if left == right:
        ui.label("Choose two runs for the line between them.").classes("dim")
    elif left in pictures and right in pictures:
        sides = [
            Shown(page.media.file_url(pictures[place]), seen.words(place))
            for place in seen.pair
        ]
        Pictures().show(*sides)
    else:
        missing = seen.names[right if left in pictures else left]
        ui.label(f"{missing} has no such sample at this step.").classes("dim")
