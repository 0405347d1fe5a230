"""The optimizers, one row each: what they take, what they cost, whether blocks can have rates of their own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from blockrate.config.parts import OptimizerSettings


@dataclass(frozen=True)
class OptimizerRow:
    """An optimizer of the catalogue.

    ``parameters``: OneTrainer's names with the defaults that an empty setting takes.
    ``ignores_rates_with``: the parameter with which an optimizer that honours group rates ignores them all the same.
    ``state_bytes``: optimizer state per trained parameter, in bytes, with default settings; factored state counts as 0.
    ``why_not_sharded``: why it cannot train weights that are shared out over GPUs, ``""`` if it can.
    ``state_as_weights``: whether that state has the type of the trained weights.
    """

    name: str
    title: str
    package: str
    parameters: Mapping[str, Any]
    state_bytes: float
    state_as_weights: bool = False
    per_block_rates: bool = True
    why: str = "the update is the rate times a direction that does not depend on it"
    ignores_rates_with: str = ""
    why_not_sharded: str = ""
    schedule_free: bool = False
    group_state: Sequence[str] = ()  # what it finds out and keeps in its groups

    def state_bytes_for(self, settings: OptimizerSettings, weight_dtype: str) -> float:
        """Bytes of state for each trained parameter of this type; fp32 for bf16 under stochastic rounding."""
        rounds_by_chance = self.values(settings).get("stochastic_rounding")
        as_weights = self.state_as_weights and not rounds_by_chance
        if as_weights and weight_dtype == "BFLOAT_16":
            return self.state_bytes / 2
        return self.state_bytes

    def values(self, settings: OptimizerSettings) -> dict[str, Any]:
        """Every parameter of this optimizer, the user's value or the default."""
        values = {}
        for name, default in self.parameters.items():
            chosen = getattr(settings, name)
            values[name] = default if chosen is None else chosen
        return values


def differing_rates_refusal(settings: OptimizerSettings) -> str:
    """Say why blocks cannot have rates of their own with these settings, ``""`` if they can.

    The one wording, for the command line and the app. 0.0 and 1.0 alone always work.
    """
    row = OPTIMIZERS[settings.optimizer]
    ignores_rates = row.values(settings).get(row.ignores_rates_with) is True
    if row.per_block_rates and not ignores_rates:
        return ""
    return f"{row.title} cannot give blocks rates of their own, only 0 and 1: {row.why}"


_CATALOGUE = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
OPTIMIZERS: Mapping[str, OptimizerRow] = MappingProxyType(
    {
        name: OptimizerRow(name, **facts)
        for name, facts in _CATALOGUE["optimizers"].items()
    }
)
