"""AdamW for bf16 weights that are rounded by chance: kernel by kernel, or the change of a weight compiled into one."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from blockrate.engine import ranks
from blockrate.engine.rounding import drawn_noise, rounded_by
from blockrate.engine.seeds import generator

Values = Mapping[str, Any]
# numbers in a row, and more rows than one: a kernel that knows it reads 16 bytes at once, and fits every size
_ROW = 16


class StochasticRoundingAdamW(torch.optim.Optimizer):
    """AdamW in fp32 arithmetic with fp32 state, for bf16 weights that are rounded by chance.

    Rounding to nearest loses every update below 1/512 of a weight, small block rates first; rounding up with the
    probability of the remainder keeps them on average. The chance is a function of (seed, parameter's name, step).
    ``compiles``: change each weight in one compiled kernel; the same numbers but for the last bits of float32.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        seed: int,
        compiles: bool = False,
    ) -> None:
        super().__init__(
            groups,
            {"lr": 1e-3, "betas": betas, "eps": eps, "weight_decay": weight_decay},
        )
        self.seed = seed
        self.compiles = compiles

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient. A ``closure`` is not supported."""
        assert closure is None
        changed = list(self._with_gradient())
        if self.compiles:
            # a compiler suits its kernel to the first sizes that it sees
            changed.sort(key=lambda row: row[1].numel(), reverse=True)
        for name, parameter, group in changed:
            self._count(parameter)
            if not (self.compiles and self._changed_in_one(parameter, group, name)):
                weight = ranks.own(self._updated(parameter, group))
                noise = self._noise(parameter, name)
                rounded = weight if noise is None else rounded_by(weight, noise)
                ranks.own(parameter.detach()).copy_(rounded)

    def _with_gradient(self) -> Iterator[tuple[str, Tensor, Values]]:
        for group in self.param_groups:
            # a library user's groups need not have names
            names = group.get("param_names") or range(len(group["params"]))
            for name, parameter in zip(names, group["params"], strict=True):
                if parameter.grad is not None:
                    yield str(name), parameter, group

    def _count(self, parameter: Tensor) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.float32)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.float32)
        state["step"] += 1

    def _updated(self, parameter: Tensor, group: Values) -> Tensor:
        """Return the new weight in fp32. Source: Loshchilov and Hutter 2019, algorithm 2."""
        assert parameter.grad is not None
        state = self.state[parameter]
        beta1, beta2 = group["betas"]
        step = float(state["step"])
        gradient = parameter.grad.float()
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        # both averages begin at zero, which the powers of the betas make good
        scale = state["exp_avg_sq"].sqrt() / (1 - beta2**step) ** 0.5
        scale.add_(group["eps"])
        rate = group["lr"] / (1 - beta1**step)
        decayed: Tensor = parameter.float() * (1 - group["lr"] * group["weight_decay"])
        return decayed.addcdiv_(state["exp_avg"], scale, value=-rate)

    def _changed_in_one(self, parameter: Tensor, group: Values, name: str) -> bool:
        """Change a weight in one kernel, or return False for one that does not lie in whole rows of numbers."""
        assert parameter.grad is not None
        state = self.state[parameter]
        written = [parameter.detach(), state["exp_avg"], state["exp_avg_sq"]]
        written = [ranks.own(tensor) for tensor in written]
        if not all(map(_is_in_rows, written)):
            return False
        noise = self._noise(parameter, name)
        _compiled()(
            *map(_rows, written),
            _rows(ranks.own(parameter.grad)),
            None if noise is None else _rows(noise),
            _factors(group, float(state["step"])),
        )
        increment_version(written)
        return True

    def _noise(self, parameter: Tensor, name: str) -> Tensor | None:
        """Return what rounds this rank's piece of a bf16 parameter, nothing for one that is not rounded.

        It is drawn for all of it, whatever the number of ranks.
        """
        if parameter.dtype != torch.bfloat16:
            return None
        step = int(self.state[parameter]["step"])
        stream = generator(self.seed, name, step, device=parameter.device)
        noise = drawn_noise(parameter.shape, stream)
        return ranks.own(ranks.spread_like(noise, parameter))


class _Factors(NamedTuple):
    """What a change multiplies by, each a number in memory: one in the program would be compiled anew in each step."""

    new_average: Tensor
    old_square: Tensor
    new_square: Tensor
    root: Tensor
    eps: Tensor
    decay: Tensor
    rate: Tensor


def _factors(group: Values, step: float) -> _Factors:
    beta1, beta2 = group["betas"]
    return _in_memory(
        1 - beta1,
        beta2,
        1 - beta2,
        (1 - beta2**step) ** 0.5,
        group["eps"],
        1 - group["lr"] * group["weight_decay"],
        group["lr"] / (1 - beta1**step),
    )


# of a step: one for each rate
@lru_cache(maxsize=256)
def _in_memory(*numbers: float) -> _Factors:
    # on the CPU, from where a kernel of a card is handed them as arguments: nothing is copied
    return _Factors(*(torch.tensor(number, dtype=torch.float32) for number in numbers))


def _is_in_rows(tensor: Tensor) -> bool:
    whole, rest = divmod(tensor.numel(), _ROW)
    return whole > 1 and not rest and tensor.is_contiguous()


def _rows(tensor: Tensor) -> Tensor:
    # a compiler would have a kernel of its own for each shape that this is a view of, which ``data`` forgets
    return tensor.reshape(-1, _ROW).data


def changed(
    weight: Tensor,
    average: Tensor,
    square: Tensor,
    gradient: Tensor,
    noise: Tensor | None,
    factors: _Factors,
) -> None:
    """Change a weight and its moments, as ``StochasticRoundingAdamW._updated`` and ``rounded_by`` do in turn."""
    gradient = gradient.float()
    new_average = average + (gradient - average) * factors.new_average
    new_square = square * factors.old_square + gradient * gradient * factors.new_square
    average.copy_(new_average)
    square.copy_(new_square)
    scale = new_square.sqrt() / factors.root + factors.eps
    updated = weight.float() * factors.decay - factors.rate * new_average / scale
    weight.copy_(updated if noise is None else rounded_by(updated, noise))


@cache
def _compiled() -> Callable[..., None]:
    function: Callable[..., None] = torch.compile(changed)
    return function
