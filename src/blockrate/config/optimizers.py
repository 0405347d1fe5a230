"""The optimizers, one row each: what they take, what they cost, whether blocks can have rates of their own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from blockrate.config.parts import OptimizerSettings


@dataclass(frozen=True)
class OptimizerRow:
    """An optimizer of the catalogue.

    ``parameters``: OneTrainer's names with the defaults that an empty setting takes.
    ``ignores_rates``: a fact about the settings, for an optimizer that honours group rates only with some of them.
    ``state_bytes``: optimizer state per trained parameter, in bytes, with default settings; factored state counts as 0.
    """

    name: str
    title: str
    package: str
    parameters: Mapping[str, Any]
    per_block_rates: bool
    why: str
    state_bytes: float
    ignores_rates: Callable[[Mapping[str, Any]], bool] = lambda values: False
    schedule_free: bool = False
    group_state: tuple[str, ...] = ()  # what it finds out and keeps in its groups

    def values(self, settings: OptimizerSettings) -> dict[str, Any]:
        """Every parameter of this optimizer, the user's value or the default."""
        chosen = {name: getattr(settings, name) for name in self.parameters}
        return {name: default if chosen[name] is None else chosen[name] for name, default in self.parameters.items()}


def differing_rates_refusal(settings: OptimizerSettings) -> str | None:
    """Why blocks cannot have different rates with these settings; None when they can. 0.0 and 1.0 alone always work."""
    row = OPTIMIZERS[settings.optimizer]
    if row.per_block_rates and not row.ignores_rates(row.values(settings)):
        return None
    return row.why


_EIGHT_BIT = {"min_8bit_size": 4096, "is_paged": False}
_ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 1e-2}
_LION = {"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0}
_LION_8BIT = {**_LION, "beta2": 0.999}
_CAME = {"beta1": 0.9, "beta2": 0.999, "beta3": 0.9999, "eps": 1e-30, "eps2": 1e-16, "weight_decay": 1e-2}
_SGD = {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
_ADAFACTOR = {
    "eps": 1e-30, "eps2": 1e-3, "clip_threshold": 1.0, "decay_rate": -0.8, "beta1": None, "weight_decay": 0.0,
    "scale_parameter": False, "relative_step": False, "warmup_init": False,
}  # fmt: skip
_PRODIGY = {
    "beta1": 0.9, "beta2": 0.999, "beta3": None, "eps": 1e-8, "weight_decay": 0.0, "decouple": True,
    "use_bias_correction": False, "safeguard_warmup": False, "d0": 1e-6, "d_coef": 1.0, "growth_rate": None,
    "slice_p": 11,
}  # fmt: skip

_FOLLOWS = "the update is the rate times a direction that does not depend on it"
_OWN_RATE = "with relative_step Adafactor finds one rate by itself and ignores every learning rate, the blocks' too"
_ONE_RATE = "Prodigy estimates one step size for all weights and stops with an error when groups have different rates"

# Source of names and defaults: OneTrainer's optimizer window. Of per_block_rates: measured, and proven by a test.
_ROWS = (
    OptimizerRow("ADAMW", "AdamW", "torch", {**_ADAM, "fused": None, "stochastic_rounding": True}, True, _FOLLOWS, 8.0),
    OptimizerRow("ADAMW_8BIT", "AdamW 8-bit", "bitsandbytes", {**_ADAM, **_EIGHT_BIT}, True, _FOLLOWS, 2.0),
    OptimizerRow(
        "ADAFACTOR", "Adafactor", "transformers", _ADAFACTOR, True, _OWN_RATE, 0.0,
        ignores_rates=lambda values: bool(values["relative_step"]),
    ),
    OptimizerRow("CAME", "CAME", "pytorch-optimizer", _CAME, True, _FOLLOWS, 4.0, group_state=("step",)),
    OptimizerRow("LION", "Lion", "pytorch-optimizer", _LION, True, _FOLLOWS, 4.0, group_state=("step",)),
    OptimizerRow("LION_8BIT", "Lion 8-bit", "bitsandbytes", {**_LION_8BIT, **_EIGHT_BIT}, True, _FOLLOWS, 1.0),
    OptimizerRow(
        "PRODIGY", "Prodigy", "prodigyopt", _PRODIGY, False, _ONE_RATE, 12.4,
        group_state=("d", "d_max", "d_numerator", "d_denom", "d_hat", "k"),
    ),
    OptimizerRow(
        "SCHEDULE_FREE_ADAMW", "Schedule-free AdamW", "schedulefree", {**_ADAM, "r": 0.0, "weight_lr_power": 2.0},
        True, _FOLLOWS, 8.0, schedule_free=True, group_state=("k", "weight_sum", "lr_max", "scheduled_lr"),
    ),
    OptimizerRow("SGD", "SGD", "torch", _SGD, True, _FOLLOWS, 0.0),
)  # fmt: skip
OPTIMIZERS: Mapping[str, OptimizerRow] = MappingProxyType({row.name: row for row in _ROWS})
