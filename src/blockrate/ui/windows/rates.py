"""The draft behind the Block Learning Rate window: values, undo, shapes, templates, copy and paste; no interface."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from blockrate.config.fork_rates import without_nulls
from blockrate.config.other_layout import carried_over
from blockrate.core import shapes
from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.core.depth import layout_text
from blockrate.core.errors import ConfigError
from blockrate.core.profile import (
    FULL,
    KEY,
    Profile,
    check_multipliers,
    is_multiplier,
    sparse,
)
from blockrate.core.selection import parse_selection
from blockrate.core.shapes import rounded

UNDO_STEPS = 200


class Shape(NamedTuple):
    """A shape over chosen blocks: what draws it, its numbers by label with their first values, its switches."""

    draw: Callable[..., dict[str, float]]
    numbers: Mapping[str, float] = {}
    switches: Sequence[str] = ()


SHAPES: Mapping[str, Shape] = {
    "Set to": Shape(shapes.constant, {"Value": 0.5}),
    "Ramp": Shape(shapes.ramp, {"From": 0.2, "To": 1.0}, ("each_bank",)),
    "Layer-wise decay": Shape(
        shapes.layer_wise_decay, {"Factor": 0.9}, ("reverse", "each_bank")
    ),
    "Bell": Shape(shapes.bell, {"Edge": 0.2, "Middle": 1.0}, ("each_bank",)),
    "Scale by": Shape(shapes.scale_by, {"Factor": 0.5}),
    "Only these blocks": Shape(shapes.only),
}


class Template(NamedTuple):
    """A shape that is drawn over everything at 1.0.

    ``selection``: of the blocks, "" is the user's own, {half} half of the double blocks. ``numbers``: of the shape.
    """

    text: str
    shape: str
    selection: str
    numbers: Sequence[float] = ()


# Classic uses first.
TEMPLATES: Mapping[str, Template] = {
    "Layer-wise decay": Template(
        "Each block 0.95 of the one after it", "Layer-wise decay", "all", (0.95,)
    ),
    "Only chosen blocks": Template(
        "The selected blocks at 1.0, all others frozen", "Only these blocks", ""
    ),
    "Preserve early blocks": Template(
        "First half of the double blocks frozen", "Set to", "double 0-{half}", (0.0,)
    ),
    "Single only": Template("Double blocks frozen", "Only these blocks", "single"),
    "Double only": Template("Single blocks frozen", "Only these blocks", "double"),
    "Single 7/12/16/20 only": Template(
        "All other blocks frozen",
        "Only these blocks",
        "single 7,12,16,20",
    ),
    "Gentle start": Template(
        "Double blocks rise from 0.2 to 1.0", "Ramp", "double", (0.2, 1.0)
    ),
    "Middle strongest": Template(
        "From 0.2 up to 1.0 and down again", "Bell", "all", (0.2, 1.0)
    ),
}


class RatesDraft:
    """The rates while they are edited.

    What nobody touches stays exactly as it stood, unknown keys and wrong values too; a 1.0 that is set leaves the
    config. ``drawable``: the faders that have something to train, all without ``trains``, what the layer filter
    leaves something of; ``other`` has no fader where it has no use. Equal to four decimals counts as untouched.
    ``other_feeds_blocks``: what lies outside the blocks modulates all of them, so that a recipe that freezes blocks
    freezes it, too, whatever the layer filter leaves of it today.
    """

    def __init__(
        self,
        layout: BlockLayout,
        original: Any,
        *,
        trains: Collection[str] | None = None,
        other_feeds_blocks: bool = False,
    ) -> None:
        self.layout = layout
        self.other_feeds_blocks = other_feeds_blocks
        every = (*layout.names, OTHER)
        kept = every if trains is None else trains
        self.names = every if OTHER in kept else layout.names
        self.drawable = tuple(name for name in every if name in kept)
        self.open(original)

    def open(self, original: Any) -> None:
        """Begin anew with what the config holds."""
        self.opened = original
        self._steps = [original]
        self._at = 0
        self._merging = ""

    @property
    def state(self) -> Any:
        """What the config would hold."""
        return self._steps[self._at]

    @property
    def values(self) -> dict[str, float]:
        """What every fader shows, in model order; a missing or wrong value is 1.0."""
        written = self._sparse()
        shown = dict.fromkeys(self.names, FULL)
        for name in self.names:
            if is_multiplier(written.get(name)):
                shown[name] = float(written[name])
        return shown

    @property
    def rates(self) -> dict[str, float]:
        """What every fader shows, and what is written of ``other`` where it has no fader."""
        written = self._sparse()
        if not is_multiplier(written.get(OTHER)):
            return self.values
        return {OTHER: float(written[OTHER]), **self.values}

    @property
    def profile(self) -> Profile:
        """What the faders show, as a trainer reads it."""
        return Profile.of(self.values, self.layout)

    @property
    def dirty(self) -> bool:
        """Whether OK would change the config."""
        return _text(self.state) != _text(self.opened)

    @property
    def undoable(self) -> tuple[bool, bool]:
        """Whether there is something to undo, and to redo."""
        return self._at > 0, self._at < len(self._steps) - 1

    @property
    def problem(self) -> str:
        """What is wrong with the rates as they stand, ``""`` if nothing."""
        try:
            check_multipliers(without_nulls(self.state), self.layout)
        except ConfigError as error:
            return f"{error.problem}. {error.cure}"
        return ""

    def summary(self) -> str:
        """Say in a line what the rates are: ``12 of 57 blocks adjusted · 3 frozen``."""
        blocks = set(self.layout.names)
        adjusted = len(blocks.intersection(sparse(self.values)))
        frozen = len(blocks.intersection(self.profile.never_trained))
        text = "All blocks at the base learning rate"
        if adjusted:
            text = f"{adjusted} of {len(blocks)} blocks adjusted"
        return f"{text} · {frozen} frozen" if frozen else text

    def commit(self, changes: Mapping[str, float], merge: str = "") -> bool:
        """Set faders as one undo step, shared with the commits just before that have the same ``merge``.

        Passes over faders that are not drawable and what is no number from 0 to 1. False if nothing changed.
        """
        rates = dict(self._sparse())
        touched = False
        settable = {*self.drawable, *([OTHER] if self.other_feeds_blocks else [])}
        for name, value in changes.items():
            if name not in settable or not is_multiplier(value):
                continue
            # null stands for no rate
            old = FULL if rates.get(name) is None else rates[name]
            if _same(old, value):
                continue
            touched = True
            new = rounded(value)
            rates[name] = new
            if new == FULL:
                del rates[name]
        return touched and self.replace(rates, merge)

    def replace(self, state: Any, merge: str = "") -> bool:
        """Go on from another state, ``{}`` for all at 1.0, as one undo step. False if it is no other."""
        if isinstance(state, dict):  # in model order, what is unknown at the end
            names = (*self.layout.names, OTHER, *state)
            state = {name: state[name] for name in names if name in state}
        if _text(state) == _text(self.state):
            return False
        kept = self._steps[: self._at + 1]
        if merge and merge == self._merging:
            del kept[-1]
        self._steps = [*kept, state][-UNDO_STEPS - 1 :]
        self._at = len(self._steps) - 1
        self._merging = merge
        return True

    def step(self, by: int) -> bool:
        """Undo (-1) or redo (1) one step. False if there is none."""
        self._merging = ""
        if not 0 <= self._at + by < len(self._steps):
            return False
        self._at += by
        return True

    def select(self, text: str | None) -> tuple[str, ...]:
        """Return the blocks that a text selects and the layer filter leaves something of. ``ConfigError`` for none."""
        chosen = parse_selection(text, self.layout)
        drawable = tuple(name for name in chosen if name in self.drawable)
        if not drawable:
            problem = "the layer filter leaves nothing of what is selected"
            raise ConfigError("selection", problem, "Choose other blocks.")
        return drawable

    def is_everything(self, names: Iterable[str]) -> bool:
        """Whether these are all blocks that have something to train."""
        return {*names} >= {*self.layout.names}.intersection(self.drawable)

    def draw(
        self,
        shape: str,
        chosen: Sequence[str],
        numbers: Sequence[object],
        **switches: bool,
    ) -> None:
        """Draw one of ``SHAPES`` over the chosen blocks. Raises ``ConfigError`` for a number that does not fit."""
        most = 1000.0 if shape == "Scale by" else 1.0
        for label, number in zip(SHAPES[shape].numbers, numbers, strict=True):
            if not is_multiplier(number, most):
                raise ConfigError(label, f"{label} needs a number from 0 to {most:g}")
        values = {name: self.values[name] for name in self.drawable}
        self.commit(SHAPES[shape].draw(values, chosen, *numbers, **switches))

    def use_template(self, title: str, own: str | None) -> None:
        """Draw one of ``TEMPLATES`` over everything; ``own``: the user's selection. Raises as ``select`` does."""
        template = TEMPLATES[title]
        selection = template.selection.format(half=self.layout.double // 2 - 1)
        blocks = self.select(selection or own)
        if not selection and self.is_everything(blocks):
            raise ConfigError("selection", "Choose some of the blocks first")
        shape = SHAPES[template.shape]
        everything = dict.fromkeys(self.drawable, FULL)
        drawn = shape.draw(everything, blocks, *template.numbers)
        if self.other_feeds_blocks:
            # else gradients go back through all that is frozen, which answers differently besides
            drawn[OTHER] = 0.0 if 0.0 in drawn.values() else FULL
        self.commit(drawn)

    def fitted(self, rates: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """Return rates as this model can have them, and in words what was done: those of another go by relative depth.

        Wrong values, which nobody can carry over, are left for the check.
        """
        found = carried_over(rates, self.layout)
        if found is None:
            return rates, ""
        return found.rates, f", by relative depth from {layout_text(found.source)}"

    def offer(self) -> BlockLayout | None:
        """Return the blocks that the rates were made for, if another model's; then they can be taken by depth."""
        found = carried_over(without_nulls(self._sparse()), self.layout)
        return found.source if found else None

    def take_by_depth(self) -> str:
        """Carry the rates over from the model they were made for; return in words what was done."""
        rates, words = self.fitted(without_nulls(self._sparse()))
        self.replace(dict(rates))
        return f"Carried over{words}"

    def paste(self, text: str) -> None:
        """Replace all rates by a JSON object, also a whole config, or by numbers between commas, one for each block.

        Raises ``ConfigError``, and then changes nothing.
        """
        try:
            rates = self._pasted(text)
        except (ValueError, RecursionError) as error:
            problem = "This is neither JSON nor numbers"
            if isinstance(error, ConfigError):
                problem = error.problem
            cure = 'Paste {"double_block_0": 0.5, ...} or 0.5, 0.6, ...'
            raise ConfigError(KEY, problem, cure) from error
        rates = without_nulls(rates.get(KEY, rates))
        check_multipliers(rates, self.layout)
        self.replace(sparse(rates))

    def _pasted(self, text: str) -> dict[str, Any]:
        """Raises ValueError for what is neither JSON nor numbers."""
        if text.lstrip().startswith("{"):
            rates: dict[str, Any] = json.loads(text)
            return rates
        return self._by_block(_numbers_in(text))

    def _by_block(self, numbers: Sequence[float]) -> dict[str, float]:
        """Return numbers in model order by block; the last may be missing, which is that of no block."""
        blocks = len(self.layout.names)
        if len(numbers) not in (blocks, blocks + 1):
            raise ConfigError(KEY, f"{len(numbers)} numbers for {blocks} blocks")
        return dict(zip((*self.layout.names, OTHER), numbers, strict=False))

    def _sparse(self) -> dict[str, Any]:
        return self.state if isinstance(self.state, dict) else {}


def _numbers_in(text: str) -> list[float]:
    """Raises ValueError for what is not a number."""
    parts = re.split(r"[\s,;]+", text.strip("[] \t\r\n,;"))
    return [float(part) for part in parts]


def _same(old: Any, value: float) -> bool:
    """Whether a value as written is the new one or shows as it; a 1.0 must be one exactly."""
    if not is_multiplier(old):
        return False
    new = rounded(value)
    return old in (value, new) or rounded(old) == new < FULL


def _text(state: Any) -> str:
    return json.dumps(state, sort_keys=True)
