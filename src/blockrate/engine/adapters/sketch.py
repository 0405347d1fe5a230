"""Gradients of a whole transformer in the memory of a LoRA's: those of adapters' second factors, which start at zero.

With random first factors A and second factors B of zero the model answers as without adapters, and the gradient of B is
that of the weight, times A transposed and the adapter's scale: a sketch of it. Its square, divided by the square of the
scale, is on average that of the weight's gradient times rank / (3 * in_features): the elements of A have the variance
1 / (3 * in_features), see ``kaiming_uniform_`` with a = sqrt(5).
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from blockrate.core.blocks import OTHER, block_of, model_order, plain_name
from blockrate.core.errors import NotANumberError
from blockrate.engine.adapters.file import ADAPTER
from blockrate.engine.data.halves import ProbeBatch

Sums = list[Tensor]  # one for each second factor, fp32


class Sketch:
    """The second factors of a transformer's adapters; their gradients are added up as they come and never stay.

    Made of a transformer with adapters. Nothing else gets a gradient from then on, until ``close``.
    ``blocks``: those with an adapter, in model order, ``other`` last.
    """

    def __init__(self, transformer: nn.Module) -> None:
        layers = {
            plain_name(name): module
            for name, module in transformer.named_modules()
            # one that is only applied, of a LoRA to start from, does not train
            if isinstance(module, LoraLayer) and _second_factor(module).requires_grad
        }
        for parameter in transformer.parameters():
            parameter.requires_grad_(False)
        owners = [block_of(name) or OTHER for name in layers]
        self.blocks: list[str] = sorted(set(owners), key=model_order)
        self.parameters = [_second_factor(layer) for layer in layers.values()]
        self._owners = torch.tensor([self.blocks.index(owner) for owner in owners])
        self._factors = torch.tensor([_to_whole(layer) for layer in layers.values()])
        self._device = self.parameters[0].device
        self._squares = torch.zeros(len(self.parameters), device=self._device)
        self._batches = 0
        self._into: Sums = []
        self._weight = 1.0
        self._hooks: list[Any] = []
        for number, parameter in enumerate(self.parameters):
            parameter.requires_grad_(True)
            watched: Any = parameter
            hook = partial(self._take, number)
            self._hooks.append(watched.register_post_accumulate_grad_hook(hook))

    def close(self) -> None:
        """Leave the adapters as any others."""
        for hook in self._hooks:
            hook.remove()

    def mean_gradient(
        self,
        batches: Iterable[ProbeBatch],
        loss_of: Callable[[ProbeBatch], Tensor],
        after: Callable[[], None] = lambda: None,
    ) -> Sums:
        """Return the gradient of the mean loss over the samples of batches, which are all of a part of a group.

        ``after``: is called after each. Raises NotANumberError.
        """
        self._into = self.zeros()
        for batch in batches:
            self._weight = batch.share
            loss = loss_of(batch)
            loss.backward()  # type: ignore[no-untyped-call]
            self._batches += 1
            self._check(loss, batch)
            after()
        return self._into

    def zeros(self) -> Sums:
        """Return sums of nothing."""
        return [
            torch.zeros_like(parameter, dtype=torch.float32, requires_grad=False)
            for parameter in self.parameters
        ]

    def along(self, signs: Iterable[Tensor], gradient: Iterable[Tensor]) -> Tensor:
        """Return by block, (blocks,), how far the loss falls by a step of one unit against ``signs``' signs.

        That is the sum over all elements of the sign of one times the other; fp64, on the CPU.
        """
        products = [
            (one.sign() * other).sum()
            for one, other in zip(signs, gradient, strict=True)
        ]
        return self._by_block(torch.stack(products).cpu().double())

    def gradient_norms(self) -> list[float]:
        """Return by block the root mean square over batches of the norm of the weights' own gradient, estimated."""
        squares = self._squares.cpu().double() * self._factors / max(1, self._batches)
        norms: list[float] = self._by_block(squares).sqrt().tolist()
        return norms

    def _by_block(self, values: Tensor) -> Tensor:
        sums = torch.zeros(len(self.blocks), dtype=torch.float64)
        return sums.index_add_(0, self._owners, values)

    def _take(self, number: int, parameter: Tensor) -> None:
        # of a block that the pass did not go through
        if parameter.grad is None:
            return
        gradient = parameter.grad.float()
        parameter.grad = None
        self._into[number].add_(gradient, alpha=self._weight)
        self._squares[number] += gradient.square().sum()

    def _check(self, loss: Tensor, batch: ProbeBatch) -> None:
        if loss.isfinite() and self._squares.sum().isfinite():
            return
        files = ", ".join(str(example.item.path) for example in batch.examples)
        problem = f"the loss or a gradient on {files} is not a number"
        cure = "Set train_dtype to FLOAT_32, or look at these images and at the model's files."
        raise NotANumberError("probe", problem, cure)


def _second_factor(layer: Any) -> nn.Parameter:
    parameter: nn.Parameter = layer.lora_B[ADAPTER].weight
    return parameter


def _to_whole(layer: Any) -> float:
    """Return what makes of the square of a second factor's gradient an estimate of that of the weight's."""
    down = layer.lora_A[ADAPTER].weight
    rank, in_features = down.shape
    return float(3 * in_features / (rank * layer.scaling[ADAPTER] ** 2))
