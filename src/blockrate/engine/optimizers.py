"""The optimizers of the catalogue (config/optimizers.py), made from a config's settings."""

import math
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.parts import OptimizerSettings
from blockrate.core.errors import ConfigError
from blockrate.engine.rounding import rounding_by_chance
from blockrate.engine.rounding_adamw import StochasticRoundingAdamW

Groups = list[dict[str, Any]]
Values = Mapping[str, Any]
Maker = Callable[[Groups, Values, int], torch.optim.Optimizer]


def make_optimizer(
    groups: Groups,
    settings: OptimizerSettings,
    *,
    seed: int,
    compiles: bool = False,
) -> torch.optim.Optimizer:
    """Return the optimizer over ``groups`` (``parameter_groups``), each with its ``initial_lr``, ready to train.

    ``seed`` fixes the noise of stochastic rounding. ``compiles``: let ``torch.compile`` make one kernel of AdamW's
    change of a bf16 weight. Raises ``ConfigError`` for a missing package and for settings that the optimizer refuses.
    """
    row = OPTIMIZERS[settings.optimizer]
    # copies, because torch writes its defaults into the groups it is given
    copies = [{**group, "initial_lr": group["lr"]} for group in groups]
    try:
        values = _without(row.values(settings), "fused_back_pass")
        optimizer = _MAKERS[row.name](copies, values, seed)
    except ImportError as error:
        problem = f"{row.title} needs {row.package}: {error}"
        cure = f"Install it with `pip install {row.package}`, or choose ADAMW."
        raise ConfigError("optimizer.optimizer", problem, cure) from error
    except ValueError as error:
        problem = f"{row.title} refuses these settings: {error}"
        cure = (
            "Leave its parameters empty for the defaults, or choose another optimizer."
        )
        raise ConfigError("optimizer", problem, cure) from error
    if isinstance(optimizer, StochasticRoundingAdamW):
        optimizer.compiles = compiles
    training_mode(optimizer)
    return optimizer


def training_mode(optimizer: torch.optim.Optimizer) -> None:
    """Put the weights where the gradient is taken; only schedule-free optimizers know a difference."""
    switch = getattr(optimizer, "train", None)
    if switch:
        switch()


def evaluation_mode(optimizer: torch.optim.Optimizer) -> None:
    """Put the averaged weights into the model, for samples and exports; ``training_mode`` undoes it."""
    switch = getattr(optimizer, "eval", None)
    if switch:
        switch()


def skips_by_itself(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the optimizer looks at ``found_inf`` on the device, as fused kernels do: then that decides on a step."""
    if getattr(optimizer, "skips_by_itself", False):
        return True
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False)) and all(
        group.get("fused") for group in optimizer.param_groups
    )


def change_unless(bad: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Take the step of an optimizer that ``skips_by_itself``: it does nothing where ``bad``, a scalar on the device.

    Once the program knows that it was bad it calls ``take_back``.
    """
    # torch's own door for it, which its GradScaler uses
    fused: Any = optimizer
    fused.found_inf = bad.float()
    try:
        fused.step()
    finally:
        del fused.found_inf


def take_back(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor]) -> None:
    """Let a step that the device has left out for these parameters not count; fused kernels count on the device."""
    taking_back = getattr(optimizer, "take_back", None)
    if taking_back and skips_by_itself(optimizer):
        taking_back(parameters)


def _adamw(groups: Groups, values: Values, seed: int) -> torch.optim.Optimizer:
    options = _plain(_without(values, "fused", "stochastic_rounding"))
    dtypes = {parameter.dtype for group in groups for parameter in group["params"]}
    if values["stochastic_rounding"] and torch.bfloat16 in dtypes:
        return StochasticRoundingAdamW(groups, seed=seed, **options)
    fused = values["fused"]
    try:
        # copies, because the attempt that fails has written into them
        copies = [dict(group) for group in groups]
        wanted = True if fused is None else fused
        return torch.optim.AdamW(copies, fused=wanted, **options)
    except RuntimeError as error:  # a device without fused kernels
        if fused:
            raise ValueError(str(error)) from error
        return torch.optim.AdamW(groups, **options)


def _library(
    path: str, options: Callable[[Values], dict[str, Any]] | None = None
) -> Maker:
    """Return a maker for a library's class, imported when it is needed; ``options`` turns our names into its names."""
    module, _, name = path.rpartition(".")

    def make(groups: Groups, values: Values, seed: int) -> torch.optim.Optimizer:
        kind = getattr(import_module(module), name)
        dtypes = {parameter.dtype for group in groups for parameter in group["params"]}
        if values.get("stochastic_rounding") and torch.bfloat16 in dtypes:
            # bitsandbytes waits for the device after each weight
            waits = module.startswith("bitsandbytes")
            kind = rounding_by_chance(kind, seed, waits=waits)
        its_values = (options or _plain)(_without(values, "stochastic_rounding"))
        optimizer: torch.optim.Optimizer = kind(groups, **its_values)
        return optimizer

    return make


def _plain(values: Values) -> dict[str, Any]:
    """Return the values by their own names, beta1, beta2, ... together as ``betas``."""
    options = {}
    betas = []
    for name, value in values.items():
        if name.startswith("beta"):
            betas.append(value)
        else:
            options[name] = value
    if betas:
        options["betas"] = tuple(betas)
    return options


def _without(values: Values, *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _adafactor_options(values: Values) -> dict[str, Any]:
    options = _without(values, "eps", "eps2")
    options["eps"] = (values["eps"], values["eps2"])
    options["lr"] = None  # a rate here forbids relative_step
    return options


def _came_options(values: Values) -> dict[str, Any]:
    options = _plain(values)
    options["eps1"] = options.pop("eps")
    return options


def _prodigy_options(values: Values) -> dict[str, Any]:
    options = _plain(_without(values, "beta3"))
    options["beta3"] = values["beta3"]
    if values["growth_rate"] is None:
        options["growth_rate"] = math.inf
    return options


_MAKERS: dict[str, Maker] = {
    "ADAMW": _adamw,
    "ADAMW_8BIT": _library("bitsandbytes.optim.AdamW8bit"),
    "ADAFACTOR": _library("transformers.optimization.Adafactor", _adafactor_options),
    "CAME": _library("pytorch_optimizer.CAME", _came_options),
    "LION": _library("pytorch_optimizer.Lion"),
    "LION_8BIT": _library("bitsandbytes.optim.Lion8bit"),
    "PRODIGY": _library("prodigyopt.Prodigy", _prodigy_options),
    "SCHEDULE_FREE_ADAMW": _library("schedulefree.AdamWScheduleFree"),
    "SGD": _library("torch.optim.SGD"),
}
