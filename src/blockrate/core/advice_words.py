"""A measurement in sentences, for the terminal and the app. Never more than was measured: see ``advice``."""

from collections.abc import Iterator

from blockrate.core.advice import FirstBlock, Probe, fastest

_OTHERS = {
    "validation": "on the pictures held out",
    "halves": "on the other half of your pictures",
}


def sentences(found: Probe) -> Iterator[str]:
    """Yield what a measurement says: the total, how much of it carries over, and what may be tried."""
    yield total_sentence(found)
    yield from filter(None, [transfer_sentence(found), found.verdict])
    if found.total.is_found:
        yield from filter(None, [faster_sentence(found), proportion_sentence(found)])


def total_sentence(found: Probe) -> str:
    """Return what all blocks have together, and at the base rate of the config."""
    total = found.total
    fall = total.gain * found.learning_rate
    error = total.error * found.learning_rate
    pictures = "1 picture" if found.images == 1 else f"{found.images:,} pictures"
    return (
        f"Predicted from the first step, on your {pictures}: to first order the loss falls by {fall:.2g} ± {error:.1g} "
        f"at the rate {found.learning_rate:g} (gain {total.gain:.3g} ± {total.error:.2g})."
    )


def transfer_sentence(found: Probe) -> str:
    """Return how much of a step's gain carries over to other pictures, ``""`` where that cannot be told."""
    share = found.total.transfer
    if share is None:
        return ""
    others = _OTHERS[found.total.transfer_to]
    return f"Of what a step gains on the pictures it is taken on, {share:.0%} is gained {others}, too."


def faster_row(found: Probe) -> FirstBlock | None:
    """Return from where training keeps most for its cost, None where that is the first block."""
    return fastest(found.by_first_block)


def faster_sentence(found: Probe) -> str:
    """Return what leaving early blocks out keeps and saves, ``""`` where nothing is proposed."""
    row = faster_row(found)
    if row is None:
        return ""
    return (
        f"Faster: train from {row.block} on (keeps {row.kept:.0%} of the predicted fall, "
        f"a step costs {row.step_cost:.2f})."
    )


def proportion_sentence(found: Probe) -> str:
    """Return that rates by gain may be tried, and with what they have to be compared."""
    flat = found.proposals.flat
    if flat is None:
        return ""
    return (
        f"In proportion (experimental; compare with flat {flat:.2g}): "
        "the rates follow where a step of the same size lowers the loss most."
    )
