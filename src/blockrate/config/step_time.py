"""How long a step takes on a card, as predicted, and what share of the card's products a measured step reaches."""

from blockrate.config.base_model import model_spec
from blockrate.config.filtered import Modules
from blockrate.config.plan import Plan
from blockrate.config.planned_memory import work_of
from blockrate.config.streamed import streaming_of, trained_modules
from blockrate.config.train_config import TrainConfig
from blockrate.models.cards import SHARE, Card
from blockrate.models.families import TransformerSpec
from blockrate.models.savings import step_flops
from blockrate.models.streaming import Streaming


def step_seconds(config: TrainConfig, plan: Plan, card: Card) -> float:
    """Return how long a step takes on a card, as predicted: by its products, and what it streams beside them."""
    spec = model_spec(config)
    return _seconds(config, spec, trained_modules(config, spec), plan.streaming, card)


def _seconds(
    config: TrainConfig,
    spec: TransformerSpec,
    trained: Modules,
    streams: Streaming,
    card: Card,
) -> float:
    work = work_of(config, spec)
    forward = step_flops(spec, (), work)
    micro = card.step_seconds(forward, step_flops(spec, trained, work), streams)
    return micro * config.gradient_accumulation_steps


def predicted_and_flops(config: TrainConfig, card: Card) -> tuple[float, float]:
    """Return how long a step takes on a card of this rate, as predicted, and the FLOPs of its products.

    Raises as ``model_spec``.
    """
    spec = model_spec(config)
    trained = trained_modules(config, spec)
    streams = streaming_of(config, spec, trained)
    flops = step_flops(spec, trained, work_of(config, spec))
    seconds = _seconds(config, spec, trained, streams, card)
    return seconds, float(flops * config.gradient_accumulation_steps)


def time_text(config: TrainConfig, plan: Plan, card: Card) -> str:
    """Return how long a step takes on a card whose rate is known, for people; nothing for another card."""
    if not card.known:
        return ""
    seconds = step_seconds(config, plan, card)
    reached = f"if it reaches {SHARE:.0%} of what it multiplies"
    return f"a step takes about {seconds:.2g} s on {card.name}, {reached}; the one measured, an H100, reached less"
