"""The memory of the cards of this computer while somebody looks: for people."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress

from blockrate.config.many_gpus import card_numbers
from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError
from blockrate.core.units import share_text, size_text
from blockrate.run.card_memory import CardMemory, memory_now
from blockrate.run.events import Rank

_TENTH = 2**30 // 10
_kept: list[tuple[TrainConfig, int]] = []


class LiveMemory:
    """What the cards hold, by number, None for one that is silent."""

    def __init__(self) -> None:
        self.cards: Sequence[CardMemory | None] = ()

    async def look(self) -> bool:
        """Ask the driver, and return whether anything is new to a reader."""
        cards = await asyncio.to_thread(memory_now)
        is_news = list(map(_text, cards)) != list(map(_text, self.cards))
        self.cards = cards
        return is_news


def memory_of(config: TrainConfig, memory: LiveMemory) -> str:
    """What the cards hold that a config trains on; nothing where that is not known."""
    cards = memory.cards
    here = len(cards)
    numbers = [number for number in card_numbers(config, here) if number < here]
    if not config.multi_gpu:
        return "".join(_text(cards[number]) for number in numbers)
    told = {number: _text(cards[number]) for number in numbers}
    return " · ".join(f"GPU {number}: {text}" for number, text in told.items() if text)


def memory_of_run(
    config: TrainConfig | None, ranks: Sequence[Rank], memory: LiveMemory
) -> str:
    """As ``memory_of``, for a run with these processes; nothing for one that trains elsewhere or on no card."""
    here = socket.gethostname()
    if config is None or not ranks:
        return ""
    if any(rank.host != here or not rank.memory_bytes for rank in ranks):
        return ""
    return memory_of(config, memory)


def planned_bytes(config: TrainConfig) -> int:
    """Return what a run is to need of a card's memory, found once for a run; 0 where its model is gone."""
    for kept, found in _kept:
        if kept is config:
            return found
    found = 0
    with suppress(BlockrateError, OSError):
        found = make_plan(config).peak_bytes
    _kept[:] = [(config, found)]
    return found


def _text(card: CardMemory | None) -> str:
    if card is None:
        return ""
    # a desktop takes and gives some megabytes every second
    used = round(card.used / _TENTH) * _TENTH
    share = share_text(used, card.total)
    return f"{share} in use on the card now, {size_text(card.total - used)} free"
