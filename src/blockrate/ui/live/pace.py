"""What was predicted of a run's steps, beside what they take: for people."""

from contextlib import suppress

from blockrate.config.step_time import predicted_and_flops
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError
from blockrate.models.cards import card_named
from blockrate.run.events import Rank
from blockrate.ui.live.watch import Watch

_kept: list[tuple[TrainConfig, str, tuple[float, float] | None]] = []


def pace(watch: Watch) -> str:
    """What a step was to take on the run's cards, and the share that it reaches of what they multiply.

    Nothing without a step, for cards that nobody knows, and for a model that is gone.
    """
    seconds = watch.history.progress.seconds_per_step
    config = watch.history.config
    ranks = watch.history.cards.ranks
    if not seconds or config is None or not ranks:
        return ""
    card = card_named(ranks[0].device, ranks[0].memory_bytes)
    predicted = _predicted(config, ranks[0])
    if not card or not predicted:
        return ""
    # several share a step
    expected, flops = (number / len(ranks) for number in predicted)
    share = flops / (seconds * card.rate)
    what = "the card multiplies" if len(ranks) == 1 else "the cards multiply"
    return f"{expected:.2g} s/step predicted · {share:.0%} of what {what}"


def _predicted(config: TrainConfig, rank: Rank) -> tuple[float, float] | None:
    """Return seconds and FLOPs of a step, found once for a run, nothing where they cannot be."""
    for kept, device, found in _kept:
        if kept is config and device == rank.device:
            return found
    found = None
    card = card_named(rank.device, rank.memory_bytes)
    if card:
        with suppress(BlockrateError, OSError):
            found = predicted_and_flops(config, card)
    _kept[:] = [(config, rank.device, found)]
    return found
