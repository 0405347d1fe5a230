"""What frozen blocks save of a LoRA step, measured beside what arithmetic says; and that a rate of 0 saves nothing.

4 + 8 blocks of width 384, 256 image and 64 text tokens, gradient checkpointing, fp32. Goal: time <= FLOPs + 0.05.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from common import (
    RANK,
    TEXT_TOKENS,
    TOY,
    arguments,
    interleaved,
    make_toy,
    ratios,
    scratch,
    spread,
    table,
    toy_config,
    toy_data,
)

from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import OTHER, block_of
from blockrate.engine.preparation import Data
from blockrate.engine.profile_rates import set_rates
from blockrate.engine.state import make_training_state
from blockrate.engine.steps import take_step
from blockrate.models.activations import Work
from blockrate.models.module_table import modules
from blockrate.models.savings import step_flops

SPEC = replace(TOY, heads=6, joint_attention_dim=512)
IMAGE_TOKENS = 256
# Attention of both streams, both MLPs, the MLP input of the single blocks: 0.43, 0.70 and 0.76 were counted with these.
LAYERS = r"^(single_)?transformer_blocks\.\d+\.(attn\.|ff(_context)?\.net\.|proj_mlp)"
BLOCKS = SPEC.layout.names
DOUBLE = BLOCKS[: SPEC.layout.double]
# counted FLOPs, and the blocks that do not train
FROZEN: dict[str, tuple[float, Iterable[str]]] = {
    "last two trained": (0.43, BLOCKS[:-2]),
    "scattered four trained": (
        0.70,
        set(BLOCKS) - {f"single_block_{index}" for index in (1, 3, 4, 6)},
    ),
    "double blocks frozen": (0.76, DOUBLE),
}
CPU = torch.device("cpu")


def main() -> None:
    """Print the measured share of a step with everything trained."""
    rounds = arguments(__doc__, rounds=15).rounds
    with scratch() as folder:
        make_toy(folder, spec=SPEC)
        config = toy_config(
            folder,
            resolution="256",
            layer_filter=LAYERS,
            layer_filter_regex=True,
            transformer={"weight_dtype": "FLOAT_32", "gradient_checkpointing": True},
        )
        data = toy_data(config)
        cases = {"all trained": step_of(config, data, ())}
        for name, (_, frozen) in FROZEN.items():
            cases[name] = step_of(config, data, frozen)
            cases[f"{name}: rate 0 instead"] = step_of(
                config, data, frozen, for_real=False
            )
        times = interleaved(cases, rounds=rounds)
    whole = flops(config, ())
    rows = []
    for name, time in times.items():
        counted, frozen = FROZEN.get(name, (1.0, ()))
        shares = [
            ratios(one, other)
            for one, other in (
                (time.wall, times["all trained"].wall),
                (time.processor, times["all trained"].processor),
            )
        ]
        rows.append(
            [
                name,
                f"{counted:.2f}",
                f"{flops(config, frozen) / whole:.2f}",
                *map(spread, shares),
            ]
        )
    header = ["case", "FLOPs, adapters kept", "FLOPs, ours", "wall", "processor"]
    table("LoRA, checkpointing: share of a step with all blocks trained", header, rows)


def step_of(
    config: TrainConfig, data: Data, frozen: Iterable[str], *, for_real: bool = True
) -> Callable[[], object]:
    """Return a step with these blocks frozen; or ``for_real`` false: trained at a rate of 0, as others do."""
    multipliers = {**dict.fromkeys(frozen, 0.0 if for_real else 0.5), OTHER: 0.5}
    changed = config.model_copy(update={"block_learning_rate_multiplier": multipliers})
    state = make_training_state(data.files, changed, CPU)
    batches = data.step_batches(0)
    rates = dict(state.profile.at(0))
    if not for_real:
        rates.update(dict.fromkeys(frozen, 0.0))
    set_rates(state.optimizer, 1.0, rates)
    return lambda: take_step(state, batches, changed, step=0, telemetry=None)


def flops(config: TrainConfig, frozen: Iterable[str]) -> int:
    """Return what blockrate's arithmetic says of a step, without attention kernels' own recomputation."""
    chosen = config.layer_filter_in_effect()
    trained = [
        module.name
        for module in modules(SPEC)
        if module.linear
        and chosen.matches(module.name)
        and block_of(module.name) not in set(frozen)
    ]
    return step_flops(SPEC, trained, Work(IMAGE_TOKENS, TEXT_TOKENS, rank=RANK))


if __name__ == "__main__":
    main()
