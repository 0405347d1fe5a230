"""Rates kept in a config under names: they train nothing, so what is wrong with them is told, and stops nothing."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import WithJsonSchema

from blockrate.config.fork_rates import PRESETS_KEY
from blockrate.core.blocks import OTHER, shortened
from blockrate.core.profile import is_multiplier
from blockrate.models.families import FAMILIES

# as it stands in the file, whatever it is: what another program wrote there stays
KeptRates = Annotated[
    Any,
    WithJsonSchema({"additionalProperties": {"type": "number"}, "type": "object"}),
]
_MOST_TOLD = 5


def why_unusable(rates: object) -> str:
    """Return why rates under a name cannot be drawn for any model, ``""`` if they can."""
    if not isinstance(rates, Mapping):
        return f"{shortened(repr(rates))} is not an object of block names and numbers"
    known = {name for family in FAMILIES.values() for name in family.spec.layout.names}
    for name, value in rates.items():
        if name not in known and name != OTHER:
            return f"{shortened(str(name))}: no such block"
        if not is_multiplier(value):
            return f"{name}: {shortened(repr(value))} is not a number from 0.0 to 1.0"
    return ""


def usable_presets(presets: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return those of the presets of a config that can be drawn, by name."""
    return {name: rates for name, rates in presets.items() if not why_unusable(rates)}


def kept_only(presets: Mapping[str, Any]) -> list[str]:
    """Return of each preset that cannot be drawn its name, and why."""
    found = {name: why_unusable(rates) for name, rates in presets.items()}
    return [f"{shortened(name)!r} ({why})" for name, why in found.items() if why]


def preset_notices(presets: Mapping[str, Any]) -> list[str]:
    """Return one line that names the presets of a config that cannot be drawn; none where all can."""
    names = kept_only(presets)
    if not names:
        return []
    more = f" and {len(names) - _MOST_TOLD} more" if len(names) > _MOST_TOLD else ""
    told = f"{', '.join(names[:_MOST_TOLD])}{more}"
    return [f"{PRESETS_KEY}: kept in the file, and not on offer in the window: {told}."]
