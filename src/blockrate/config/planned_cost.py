"""The FLOPs of a config's step, relative to those of another."""

from collections.abc import Collection, Iterable

from blockrate.config.filtered import Modules
from blockrate.models.activations import Work
from blockrate.models.families import TransformerSpec
from blockrate.models.savings import step_flops


def step_cost(
    spec: TransformerSpec,
    trained: Collection[str],
    allowed: Collection[str],
    work: Work,
) -> float:
    """Return FLOPs of a step that trains some of the modules that may train, relative to those with all of them."""
    return step_flops(spec, trained, work) / step_flops(spec, allowed, work)


def other_cost(
    spec: TransformerSpec, allowed: Modules, ever_trained: Iterable[str], work: Work
) -> float:
    """Return FLOPs of a step with what is outside blocks trained, relative to those without it."""
    trains = set(ever_trained)
    outside = [name for name, module in allowed.items() if not module.block]
    inside = [name for name, module in allowed.items() if module.block in trains]
    if not outside or not inside:
        return 1.0
    return step_flops(spec, [*inside, *outside], work) / step_flops(spec, inside, work)
