"""What each block does in a step: its rate, its gradient, how far its weights moved."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from blockrate.engine import ranks
from blockrate.engine.effective_rates import AS_THEY_ARE, EffectiveRates
from blockrate.engine.parameter_groups import Trained, parameters_by_block
from blockrate.run.events import Blocks

SAMPLE = 4096  # elements of a tensor that are looked at


class BlockTelemetry:
    """Measures one step by block: ``before_step`` after the backward pass, ``after_step`` after the optimizer's step.

    Keeps a copy of at most 4,096 elements of each trained tensor between the two calls, and waits for the device once,
    at the end. Made after the parameter groups; a block is known by where its parameters lie in the model.
    """

    def __init__(self, model: Trained, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        grouped = {
            id(parameter)
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        self.block_of: dict[int, str] = {}
        self.blocks: dict[str, list[nn.Parameter]] = {}
        for row in parameters_by_block(model):
            if id(row.parameter) in grouped:
                self.block_of[id(row.parameter)] = row.block
                self.blocks.setdefault(row.block, []).append(row.parameter)
        self._gradients: list[tuple[str, Tensor]] = []
        self._weights: dict[str, Tensor] = {}
        self._moved: dict[str, Tensor] = {}

    def before_step(self) -> None:
        """Take the gradients' norms and a sample of the weights. Before clipping, to see the gradients as they are."""
        for block in self.blocks:
            self.before_block(block)

    @torch.no_grad()
    def before_block(self, block: str) -> None:
        """Do what ``before_step`` does for one block, whose weights are about to change before those of others."""
        parameters = self.blocks[block]
        gradients = [
            ranks.own(parameter.grad)
            for parameter in parameters
            if parameter.grad is not None
        ]
        if gradients:
            for norm in torch._foreach_norm(gradients, 2, dtype=torch.float32):
                self._gradients.append((block, norm))
        self._weights[block] = _sample(parameters)

    @torch.no_grad()
    def after_block(self, block: str) -> None:
        """Look how far a block's weights have moved, before they may not be at hand any more."""
        self._moved[block] = _sample(self.blocks[block]) - self._weights[block]

    @torch.no_grad()
    def after_step(self, effective: EffectiveRates = AS_THEY_ARE) -> Blocks:
        """Return rates by group and by block, gradient norms, and update ratios by block.

        The update ratio is the RMS of the change over the RMS of the weights, by the samples of all tensors of the
        block together, so LoRA's A and B count as one. None where the weights are zero or a value is not finite.
        """
        for block in self._weights:
            if block not in self._moved:
                self.after_block(block)
        looked_at = list(self._weights)
        norms = [
            *torch._foreach_norm([self._moved[block] for block in looked_at]),
            *torch._foreach_norm(list(self._weights.values())),
            *(norm for _, norm in self._gradients),
        ]
        # The one moment that waits for the device.
        values = ranks.norms_of_all(torch.stack(norms)).tolist()
        count = len(looked_at)
        gradients = self._gradient_norms(values[2 * count :])
        ratios: dict[str, float | None] = dict.fromkeys(self.blocks)
        for place, block in enumerate(looked_at):
            weights = values[count + place]
            ratios[block] = _finite(values[place] / weights if weights else math.nan)
        self._gradients = []
        self._weights = {}
        self._moved = {}
        return Blocks(
            self.learning_rates(),
            gradients,
            ratios,
            self._by_block(effective.rates),
            self._by_block(effective.d),
        )

    def _gradient_norms(self, norms: Sequence[float]) -> dict[str, float | None]:
        """Return the norm of each block's gradient, of those of its tensors."""
        squares = dict.fromkeys(self.blocks, 0.0)
        for (block, _), norm in zip(self._gradients, norms, strict=True):
            squares[block] += norm * norm
        return {block: _finite(math.sqrt(squares[block])) for block in squares}

    def learning_rates(self) -> dict[str, float | None]:
        """Return what the optimizer holds, by group; and by block where one group holds the whole transformer."""
        rates: dict[str, float | None] = {}
        for group in self.optimizer.param_groups:
            rate = float(group["lr"])
            if "name" in group:
                rates[group["name"]] = rate
            for parameter in group["params"]:
                rates[self.block_of[id(parameter)]] = rate
        return rates

    def _by_block(self, values: Mapping[str, float]) -> dict[str, float | None]:
        """Return values of groups by group and by block."""
        found: dict[str, float | None] = dict(values)
        for group in self.optimizer.param_groups:
            if group.get("name") in values:
                for parameter in group["params"]:
                    found[self.block_of[id(parameter)]] = values[group["name"]]
        return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sample(tensors: Sequence[Tensor]) -> Tensor:
    """Return a copy of every n-th element of each tensor, in one vector, fp32, each standing for those left out.

    So its norm estimates that of the whole block; else a bias would count like the matrix it belongs to.
    """
    parts = []
    shares = []
    for tensor in tensors:
        held = ranks.own(tensor.detach())
        part = held.reshape(-1)[:: _stride(held.shape)].float()
        parts.append(part)
        shares.append(math.sqrt(held.numel() / max(1, part.numel())))
    return torch.cat(torch._foreach_mul(parts, shares))


def _stride(shape: Sequence[int]) -> int:
    """Return the smallest step that meets at most ``SAMPLE`` elements and wanders over all columns."""
    # of a small tensor a rank may hold nothing
    stride = max(1, math.ceil(math.prod(shape) / SAMPLE))
    while shape and math.gcd(stride, shape[-1]) > 1:
        stride += 1
    return stride
