"""A step whose backward changes each block as soon as its gradients are there, and drops them.

No more than one block's gradients are in memory, and weights that stream go back to main memory with their block. What
needs all gradients at once, clipping by their common norm and accumulation, is refused by the config.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from blockrate.config.train_config import TrainConfig
from blockrate.engine.data.noised import NoisedBatch
from blockrate.engine.effective_rates import effective_rates, found_factors
from blockrate.engine.optimizers import change_unless, skips_by_itself, take_back
from blockrate.engine.readings import Reading, mark
from blockrate.engine.state import TrainingState
from blockrate.engine.steps import TakenStep, flow_loss, seed_dropout
from blockrate.engine.streaming import stream_of
from blockrate.engine.telemetry import BlockTelemetry


@dataclass(eq=False)
class _Unit:
    """What is changed together: the parameters of a block. ``group``: that of the optimizer which holds them."""

    block: str
    group: dict[str, Any]
    names: list[str] = field(default_factory=list)
    parameters: list[nn.Parameter] = field(default_factory=list)
    waits_for: int = 0


class FusedBackPass:
    """Hooks at the trained parameters of a state. They do nothing outside ``take_step``."""

    def __init__(self, state: TrainingState) -> None:
        self.state = state
        self.optimizer = state.optimizer
        self.stream = stream_of(state.transformer)
        self.norms: dict[str, Tensor] = {}  # of a step's gradients
        self._telemetry: BlockTelemetry | None = None
        self._active = False
        self._units = list(_units(state))
        self._hooks = []
        for unit in self._units:
            for parameter in unit.parameters:
                hooked: Any = parameter
                came = partial(self._came, unit)
                self._hooks.append(hooked.register_post_accumulate_grad_hook(came))

    def remove_hooks(self) -> None:
        """Leave the parameters as they were: what trains, or its optimizer, is about to be another."""
        for hook in self._hooks:
            hook.remove()

    def take_step(
        self,
        batches: Sequence[NoisedBatch],
        config: TrainConfig,
        *,
        step: int,
        telemetry: BlockTelemetry | None,
        before_change: Callable[[], None] = lambda: None,
    ) -> TakenStep:
        """Train on the one micro-batch of ``step``, as ``steps.take_step`` does, to the same bits.

        A block whose gradients are not finite stays as it is, and the step counts as skipped; others have changed.
        """
        (batch,) = batches
        state = self.state
        began = mark(state.device)
        seed_dropout(config, step)
        loss = flow_loss(state, batch, config) * batch.share
        before_change()
        factors = found_factors(self.optimizer)
        state.weights_are_whole = False
        with self._changing(telemetry):
            loss.backward()  # type: ignore[no-untyped-call]
        state.weights_are_whole = True
        effective = effective_rates(self.optimizer, factors)
        names = [name for name in state.trained if name in self.norms]
        norms = torch.stack([self.norms[name] for name in names])
        norm = torch.linalg.vector_norm(norms)
        reading = Reading(torch.cat((torch.stack((loss.detach(), norm)), norms)))
        return TakenStep(
            reading,
            [state.blocks[name] for name in names],
            list(batch.files),
            began,
            mark(state.device),
            telemetry.after_step(effective) if telemetry else None,
            effective,
            partial(self._take_back, names),
        )

    @contextmanager
    def _changing(self, telemetry: BlockTelemetry | None) -> Iterator[None]:
        """Let the backward that is run inside change the weights."""
        self.norms = {}
        self._telemetry = telemetry
        for unit in self._units:
            unit.waits_for = len(unit.parameters)
        self._active = True
        try:
            yield
            for unit in self._units:
                # of which not every parameter has taken part
                if 0 < unit.waits_for < len(unit.parameters):
                    self._change(unit)
        finally:
            self._active = False

    def _came(self, unit: _Unit, _parameter: Tensor) -> None:
        if self._active:
            unit.waits_for -= 1
            if unit.waits_for == 0:
                self._change(unit)

    def _change(self, unit: _Unit) -> None:
        """Change what a unit's gradients say, unless one of them is not a number, and drop them."""
        if self.stream:
            self.stream.hold(unit.block)
        gradients = {}
        for name, parameter in zip(unit.names, unit.parameters, strict=True):
            if parameter.grad is not None:
                gradients[name] = parameter.grad
        norms = torch._foreach_norm(list(gradients.values()))
        self.norms |= dict(zip(gradients, norms, strict=True))
        bad = ~torch.stack(norms).isfinite().all()
        if self._telemetry:
            self._telemetry.before_block(unit.block)
        self._change_unless(bad, unit)
        if self._telemetry:
            self._telemetry.after_block(unit.block)
        for parameter in unit.parameters:
            parameter.grad = None
        if self.stream:
            self.stream.bring_home(unit.block)

    def _take_back(self, names: Sequence[str], norms: Sequence[float]) -> None:
        """Let the step of units that the device has left alone not count. ``norms``: of the gradients, by name."""
        by_name = dict(zip(names, norms, strict=True))
        for unit in self._units:
            rows = zip(unit.names, unit.parameters, strict=True)
            changed = {name: row for name, row in rows if name in by_name}
            if not all(math.isfinite(by_name[name]) for name in changed):
                take_back(self.optimizer, changed.values())

    def _change_unless(self, bad: Tensor, unit: _Unit) -> None:
        device_decides = skips_by_itself(self.optimizer)
        groups = self.optimizer.param_groups
        only = {"params": unit.parameters, "param_names": unit.names}
        self.optimizer.param_groups = [{**unit.group, **only}]
        try:
            if device_decides:
                change_unless(bad, self.optimizer)
            elif not bool(bad):
                self.optimizer.step()
        finally:
            self.optimizer.param_groups = groups


def _units(state: TrainingState) -> Iterator[_Unit]:
    """Yield what is changed together, group by group."""
    for group in state.optimizer.param_groups:
        found: dict[str, _Unit] = {}
        for name, parameter in zip(group["param_names"], group["params"], strict=True):
            block = state.blocks[name]
            unit = found.setdefault(block, _Unit(block, group))
            unit.names.append(name)
            unit.parameters.append(parameter)
        yield from found.values()
