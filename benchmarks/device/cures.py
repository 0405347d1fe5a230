"""What might make a step cheaper, each against the row that trains all blocks: "cost measured" is the gain."""

from collections.abc import Iterator
from dataclasses import replace

from peft.tuners.lora import LoraLayer
from random_flux import Scale

from blockrate.engine.state import TrainingState
from device.card import clear
from device.measuring import Case, measure, measure_unless_known
from device.rows import first_case
from device.shared import Check


def measure_cures(check: Check) -> None:
    """Measure every cure, and what it is compared with if no row has done so."""
    measure_whole_step(check)
    for case in cases(check.scale):
        measure(check, "cures", case)
    measure_attention(check)


def measure_compiled(check: Check) -> None:
    """Measure a compiled step. Alone, and best last: compiling takes its time."""
    measure_whole_step(check)
    case = Case(
        name="compile",
        changes={"compile": True},
        sizes=check.scale.sizes[:1],
        seconds=60,
        group="lora",
    )
    measure(check, "cures", case)


def measure_whole_step(check: Check) -> None:
    first = replace(first_case(check.scale), beside_bare_loop=False)
    measure_unless_known(check, "cures", first)


def cases(scale: Scale) -> Iterator[Case]:
    yield Case(
        name="PEFT's own layers, as before they were computed in few kernels",
        changes={},
        sizes=scale.sizes,
        seconds=20,
        group="lora",
        change=with_pefts_layers,
    )
    yield Case(
        name="no autocast",
        changes={"enable_autocast": False},
        sizes=scale.sizes,
        seconds=20,
        group="lora",
    )
    yield Case(
        name="no checkpointing",
        changes={"transformer": {"gradient_checkpointing": False}},
        sizes=scale.sizes[:1],
        seconds=15,
        group="lora",
    )
    yield Case(
        name="batch 4",
        changes={},
        sizes=scale.sizes[:1],
        seconds=20,
        samples=4,
    )


def with_pefts_layers(state: TrainingState) -> None:
    for module in state.transformer.modules():
        if isinstance(module, LoraLayer):
            vars(module).pop("forward", None)
        elif hasattr(module, "fused_projections"):
            module.fused_projections = False


def measure_attention(check: Check) -> None:
    """Measure cuDNN's attention, and put back torch's own: diffusers keeps a choice for every later model."""
    changed = []

    def by_cudnn(state: TrainingState) -> None:
        state.transformer.set_attention_backend("_native_cudnn")
        changed.append(state.transformer)

    case = Case(
        name="attention by cuDNN",
        changes={},
        sizes=check.scale.sizes,
        seconds=20,
        group="lora",
        change=by_cudnn,
    )
    measure(check, "cures", case)
    while changed:
        changed.pop().set_attention_backend("native")
    clear()
