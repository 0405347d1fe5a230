"""Block rates as the OneTrainer fork in which they began saves them: read, and what they meant there told once."""

from typing import Any

from blockrate.config.onetrainer_sections import is_versioned
from blockrate.config.reading import Json
from blockrate.core.blocks import shortened
from blockrate.core.profile import FULL, KEY

PRESETS_KEY = "block_learning_rate_custom_presets"
# the layer filters under which the fork's rates act
_ACT_UNDER = ("blocks", "attn-mlp", "attn-only")
# its faders move in steps of 0.01, and add them up
_DIGITS = 9
_NOTHING = 1e-13


def mend_sums(data: Json) -> None:
    """Read sums of 0.01 in rates that OneTrainer saved as what its faders showed: 0.30000000000000004 as 0.3."""
    if not is_versioned(data):
        return
    drop_nulls(data)
    if isinstance(data.get(KEY), dict):
        data[KEY] = _mended(data[KEY])
    presets = data.get(PRESETS_KEY)
    if isinstance(presets, dict):
        data[PRESETS_KEY] = {name: _mended(rates) for name, rates in presets.items()}


def drop_nulls(data: Json) -> None:
    """Read null as no rates, and a block at null as one without a rate of its own."""
    if KEY in data:
        data[KEY] = without_nulls(data[KEY])
    presets = data.get(PRESETS_KEY, {})
    if presets is None:
        del data[PRESETS_KEY]
    elif isinstance(presets, dict):
        data[PRESETS_KEY] = {
            name: without_nulls(rates) for name, rates in presets.items()
        }


def without_nulls(rates: Any) -> Any:
    """Return rates as they are read: those that are null are none; what is no object stays as it is."""
    if rates is None:
        return {}
    if not isinstance(rates, dict):
        return rates
    return {name: rate for name, rate in rates.items() if rate is not None}


def _mended(rates: Any) -> Any:
    if not isinstance(rates, dict):
        return rates
    return {name: _without_noise(rate) for name, rate in rates.items()}


def _without_noise(rate: Any) -> Any:
    """Return 0.3 for 0.30000000000000004, and 0.0 for -1e-17, which is what is left of 0.3 - 0.1 - 0.1 - 0.1."""
    if not isinstance(rate, float):
        return rate
    return 0.0 if abs(rate) < _NOTHING else float(f"{rate:.{_DIGITS}g}")


def fork_notices(data: Json) -> list[str]:
    """Return what rates in a file of the fork did there and do not do here: nothing, under some layer filters."""
    rates = _mended(without_nulls(data.get(KEY)))
    preset = data.get("layer_filter_preset", "full")
    if not is_versioned(data) or preset in _ACT_UNDER or not isinstance(rates, dict):
        return []
    if not isinstance(preset, str):
        return []
    if all(rate == FULL for rate in rates.values()):
        return []
    rule = f"{', '.join(_ACT_UNDER[:-1])} and {_ACT_UNDER[-1]}"
    return [
        f"{KEY}: block rates act under every layer filter here; in the OneTrainer fork "
        f"that has them they act under {rule} only, and layer_filter_preset is "
        f"{shortened(preset)!r}. To train without them set {KEY} to {{}}."
    ]
