"""Block rates under a name, for the Block Learning Rate window: which there are, and which of them are drawn."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.core.errors import ConfigError
from blockrate.core.profile import FULL, Multipliers, complete, sparse
from blockrate.core.selection import parse_selection
from blockrate.core.shapes import rounded
from blockrate.ui.windows.rates import TEMPLATES, RatesDraft

ALL_ONES = "All at 1.0"
OWN = "Own"
Origin = Literal["recipe", "selection", "fork", "own", "config"]


class Preset(NamedTuple):
    """Rates under a name; ``text``: a line on them.

    ``rates``: of every block and ``other``, as they are drawn over everything; empty where
    they depend on the blocks that the user has selected. ``set``: those that it sets, the
    others stay as they are; all without. ``words``: how rates of another model came to
    fit, told when they are drawn.
    """

    name: str
    text: str
    origin: Origin
    rates: Multipliers = MappingProxyType({})
    set: tuple[str, ...] = ()
    words: str = ""


class _OfFork(NamedTuple):
    """``blocks`` at ``rate``, all other blocks at ``rest``; at None they stay as they are."""

    text: str
    blocks: str
    rate: float
    rest: float | None


# As one public OneTrainer fork ships them for FLUX.1: no findings, and no advice.
_FORK_LAYOUT = BlockLayout(19, 38)
_FORK: Mapping[str, _OfFork] = {
    "Structure": _OfFork(
        "Single 9-14 at 1.0, all other blocks at 0.01", "single 9-14", 1.0, 0.01
    ),
    "Detail": _OfFork(
        "Single 7, 12, 16, 20 at 1.0, all other blocks at 0.01",
        "single 7,12,16,20",
        1.0,
        0.01,
    ),
    "Luma Normalize": _OfFork(
        "Double 0-6 and 11 single blocks frozen, the others as they are",
        "double 0-6; single 15,16,22,29,32,34-37",
        0.0,
        None,
    ),
}
BUILT_IN = (ALL_ONES, OWN, *TEMPLATES, *_FORK)


def built_in(draft: RatesDraft) -> Iterator[Preset]:
    """Yield what comes with blockrate and fits the model of a draft."""
    yield Preset(ALL_ONES, "Every block at the base rate", "recipe", _flat(draft))
    for name, template in TEMPLATES.items():
        rates = _recipe(draft, name) if template.selection else {}
        if rates:
            yield Preset(name, template.text, "recipe", rates)
        elif not template.selection:
            yield Preset(name, template.text, "selection")
    if draft.layout == _FORK_LAYOUT:
        for name, preset in _FORK.items():
            yield _of_fork(name, preset)


def kept(name: str, rates: Multipliers, draft: RatesDraft, origin: Origin) -> Preset:
    """Return rates that somebody has kept under a name, as a draft's model can have them."""
    fitting, words = draft.fitted(rates)
    count = len(sparse(fitting))
    text = f"{count} {'rate' if count == 1 else 'rates'} below 1.0{words}"
    drawn = complete(fitting, draft.layout)
    return Preset(name, text, origin, drawn, words=words)


def matching(draft: RatesDraft, presets: Iterable[Preset]) -> str:
    """Return the name of the first preset that has the rates of a draft, ``OWN`` if none has them.

    What the layer filter leaves nothing of does not count.
    """
    values = draft.values
    for preset in presets:
        if preset.rates and all(
            rounded(preset.rates.get(name, FULL)) == rounded(values[name])
            for name in draft.drawable
            if name in values
        ):
            return preset.name
    return OWN


def _flat(draft: RatesDraft) -> dict[str, float]:
    return complete({}, draft.layout)


def _recipe(draft: RatesDraft, name: str) -> dict[str, float]:
    """Return what a recipe draws; of one that the layer filter leaves nothing of, what it would draw.

    Nothing for one that names blocks which this model has not.
    """
    for trains in (draft.drawable, None):
        drawn = RatesDraft(
            draft.layout,
            {},
            trains=trains,
            other_feeds_blocks=draft.other_feeds_blocks,
        )
        try:
            drawn.use_template(name, None)
        except ConfigError:
            continue
        return complete(drawn.rates, draft.layout)
    return {}


def _of_fork(name: str, preset: _OfFork) -> Preset:
    chosen = parse_selection(preset.blocks, _FORK_LAYOUT)
    rest = FULL if preset.rest is None else preset.rest
    rates = dict.fromkeys(_FORK_LAYOUT.names, rest)
    rates.update(dict.fromkeys(chosen, preset.rate))
    rates[OTHER] = FULL
    only = chosen if preset.rest is None else ()
    return Preset(name, preset.text, "fork", rates, only)
