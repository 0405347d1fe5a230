"""A measurement that nobody has made, for what shows measurements: late blocks have most, one would do harm."""

from blockrate.config.base_model import model_spec
from blockrate.config.probed import costs_by_first_block, probe_hash
from blockrate.config.train_config import TrainConfig
from blockrate.core.advice import (
    BlockGain,
    Probe,
    Total,
    by_first_block,
    proposals,
    verdict,
)
from blockrate.core.blocks import OTHER


def made_up_probe(
    config: TrainConfig, transfer: float | None = 0.66, error: float = 0.1
) -> Probe:
    """A measurement for a config, of all of its blocks."""
    spec = model_spec(config)
    costs = costs_by_first_block(config, spec)
    late = len(costs) // 2
    gains = {
        name: 0.02 if place < late else 0.1 + 0.01 * place
        for place, name in enumerate(costs)
    }
    gains[next(iter(gains))] = -0.01
    total = Total(sum(gains.values()), error, transfer, "halves" if transfer else "")
    rows = by_first_block(gains, costs)
    return Probe(
        config_hash=probe_hash(config),
        model=config.base_model_name,
        images=24,
        held_out_images=0,
        batch_size=config.batch_size,
        rank=config.lora_rank,
        seed=config.seed,
        learning_rate=config.base_learning_rate(),
        blocks={
            name: BlockGain(gain, 0.01, 1.0)
            for name, gain in gains.items()
            if name != OTHER
        },
        total=total,
        verdict=verdict(total),
        by_first_block=rows,
        proposals=proposals(gains, rows),
    )
