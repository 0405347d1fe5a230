"""What differs between two sets of block rates, in words."""

from collections.abc import Mapping

from blockrate.core.profile import FULL

_MOST = 3


def changes_text(
    old: Mapping[str, float | None], new: Mapping[str, float | None]
) -> str:
    """Return which multipliers differ, the first few: ``double_block_0 1 -> 0.5``; ``no other rates`` if none."""
    changed = []
    for name in {**old, **new}:
        pair = old.get(name, FULL), new.get(name, FULL)
        if pair[0] != pair[1]:
            changed.append(f"{name} {_number(pair[0])} -> {_number(pair[1])}")
    text = ", ".join(changed[:_MOST])
    if len(changed) > _MOST:
        text += f" and {len(changed) - _MOST} more"
    return text or "no other rates"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"
