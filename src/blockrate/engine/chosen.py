"""Which modules train: what ``transformer.train``, the layer filter and the blocks' rates let through."""

from collections.abc import Iterable, Mapping

from torch import nn

from blockrate.config.train_config import TrainConfig
from blockrate.engine.parameter_groups import block_layout


def chosen_modules(
    transformer: nn.Module, modules: Mapping[str, str], config: TrainConfig
) -> set[str]:
    """Return the names of the modules that train in some step of the run.

    ``modules``: the block, or ``other``, of each by its full name. Raises
    ``ConfigError`` for a multiplier that is wrong in this transformer.
    """
    layout = block_layout(transformer)
    ever_trained = config.profile(layout).ever_trained
    if not config.transformer.train:
        return set()
    return {
        name
        for name in matching_modules(modules, config)
        if modules[name] in ever_trained
    }


def matching_modules(modules: Iterable[str], config: TrainConfig) -> list[str]:
    """Return the names that the layer filter lets through, whatever the rates of their blocks."""
    layer_filter = config.layer_filter_in_effect()
    return [name for name in modules if layer_filter.matches(name)]
