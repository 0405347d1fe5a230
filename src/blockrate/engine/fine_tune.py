"""What a full fine-tune trains: the weights themselves, in the chosen modules of the chosen blocks."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from blockrate.config.train_config import TrainConfig
from blockrate.engine.chosen import chosen_modules
from blockrate.engine.parameter_groups import parameters_by_block
from blockrate.engine.streaming import at_home


@torch.no_grad()
def add_learned(
    transformer: nn.Module, config: TrainConfig, weights: Mapping[str, Tensor]
) -> dict[str, nn.Parameter]:
    """Choose the weights that train, put ``weights`` in, and return the parameters that hold these, by name.

    ``weights``: what an earlier session of the run has learned.
    """
    choose_weights(transformer, config)
    parameters = dict(transformer.named_parameters())
    learned = {name: parameters[name] for name in weights}
    with at_home(transformer):
        for name, parameter in learned.items():
            parameter.copy_(weights[name])
    return learned


def choose_weights(transformer: nn.Module, config: TrainConfig) -> None:
    """Let the parameters train whose module passes the layer filter and whose block is not at 0.0; freeze the rest.

    With ``transformer.train`` off everything is frozen.
    """
    rows = parameters_by_block(transformer)
    modules = {row.module: row.block for row in rows}
    chosen = chosen_modules(transformer, modules, config)
    for row in rows:
        row.parameter.requires_grad_(row.module in chosen)
    transformer.train(config.transformer.train)
