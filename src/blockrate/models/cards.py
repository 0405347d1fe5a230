"""What is known of graphics cards: how fast they multiply, what they have free, how long a step takes on one."""

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockrate.models.streaming import Streaming

_FACTS: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text())
# the memory of cards is told in these, whatever the maker means by a GB
GIGABYTE = 2**30
# of a card's rate that a step reaches: assumed until a card has shown it
SHARE = float(_FACTS["share"])
# what torch's allocator takes beside what it is asked for
SLACK = 1.1


@dataclass(frozen=True)
class Card:
    """A graphics card. ``free``: bytes that a program may have. ``rate``: FLOPs a second, of matrix products in bf16.

    ``known``: whether the rate is that of this card, not of one of its size.
    """

    name: str
    total: int
    free: int
    rate: float
    known: bool = False

    def seconds(self, flops: float) -> float:
        """Return how long a step takes so many FLOPs."""
        return flops / (self.rate * SHARE)

    def step_seconds(self, forward: int, step: int, streams: Streaming) -> float:
        """Return how long a step takes that streams weights. ``forward``: FLOPs of it, of the ``step``'s."""
        bus = float(_FACTS["bus"])
        ahead = max(self.seconds(forward), streams.bytes / bus)
        back = max(
            self.seconds(step - forward),
            (streams.twice_bytes + streams.written_bytes) / bus,
        )
        return ahead + back


def card_of_size(gigabytes: float) -> Card:
    """Return a card of so many GB, of which the driver and a desktop have taken their part."""
    total = round(gigabytes * GIGABYTE)
    free = total - round(_FACTS["driver"] + _FACTS["desktop"])
    return Card(f"a card with {gigabytes:g} GB", total, free, _rate_of_size(gigabytes))


def cards_here() -> tuple[Card, ...]:
    """Return the NVIDIA cards of this computer, as nvidia-smi tells; none where there are none. May take seconds."""
    command = [
        "nvidia-smi",
        "--query-gpu=name,memory.total,memory.free",
        "--format=csv,noheader,nounits",
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True
        )
        return tuple(map(_card, done.stdout.strip().splitlines()))
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


def chosen_card(device: str | None, cards: Sequence[Card]) -> Card | None:
    """Return the one of these cards that a config's ``train_device`` means, nothing if it means none of them."""
    number = card_number(device)
    return cards[number] if number is not None and number < len(cards) else None


def card_number(device: str | None) -> int | None:
    """Return the number of the card that a config's ``train_device`` means, None for what is no card."""
    kind, _, number = (device or "cuda").partition(":")
    if kind != "cuda":
        return None
    return int(number) if number.isdecimal() else 0


def card_named(name: str, total: int) -> Card | None:
    """Return a card of this name and memory, in bytes, all of it free; nothing for one whose rate nobody knows."""
    rate = rate_of(name)
    return Card(name, total, total, rate, known=True) if rate else None


def _card(line: str) -> Card:
    name, total, free = line.rsplit(",", 2)
    size = int(total) * 2**20
    rate = rate_of(name)
    return Card(
        name.strip(),
        size,
        int(free) * 2**20,
        rate or _rate_of_size(size / GIGABYTE),
        rate > 0,
    )


def rate_of(name: str) -> float:
    """Return the FLOPs a second of a card by its name, 0 for one that nobody knows."""
    if "Laptop" in name:
        # which is another chip by the name of a larger card
        return 0.0
    # A100-SXM4-80GB is an A100, and no A1000
    rates = _FACTS["names"]
    names = [key for key in rates if re.search(rf"\b{re.escape(key)}\b", name)]
    return float(rates[max(names, key=len)]) * 1e12 if names else 0.0


def _rate_of_size(gigabytes: float) -> float:
    rates = {float(size): rate for size, rate in _FACTS["by_gigabytes"].items()}
    nearest = min(rates, key=lambda size: abs(size - gigabytes))
    return float(rates[nearest]) * 1e12
