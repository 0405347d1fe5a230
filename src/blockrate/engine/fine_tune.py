"""What a full fine-tune trains: the weights themselves, in the chosen modules of the chosen blocks."""

from torch import nn

from blockrate.config.train_config import TrainConfig
from blockrate.core.profile import check_multipliers, complete
from blockrate.engine.parameter_groups import block_layout, parameters_by_block


def choose_weights(transformer: nn.Module, config: TrainConfig) -> None:
    """Let the parameters train whose module passes the layer filter and whose block is not at 0.0; freeze the rest.

    With ``transformer.train`` off everything is frozen.
    """
    layout = block_layout(transformer)
    check_multipliers(config.block_learning_rate_multiplier, layout)
    multipliers = complete(config.block_learning_rate_multiplier, layout)
    layer_filter = config.layer_filter_in_effect()
    for row in parameters_by_block(transformer):
        chosen = (
            config.transformer.train
            and multipliers[row.block] > 0.0
            and layer_filter.matches(row.module)
        )
        row.parameter.requires_grad_(chosen)
    transformer.train(config.transformer.train)
