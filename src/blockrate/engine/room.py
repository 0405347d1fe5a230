"""Whether there is room on the disk for what a run will save, looked at before the work that it would cost."""

from pathlib import Path

from blockrate.config.train_config import TrainConfig
from blockrate.engine.checkpoint import checkpoint_bytes
from blockrate.engine.state import TrainingState
from blockrate.run.checkpoints import checkpoints
from blockrate.run.durable import check_space


def check_checkpoint_space(
    folder: Path, state: TrainingState, config: TrainConfig
) -> None:
    """Raise WriteError unless there is room in ``folder`` for the checkpoints that are yet to come."""
    rolling = config.rolling_backup_count if config.rolling_backup else 1
    # one more than stays, because the oldest is deleted after the newest is whole
    missing = max(1, rolling + 1 - len(checkpoints(folder)))
    size = missing * checkpoint_bytes(
        state, config.optimizer, trained_dtype=config.trained_dtype()
    )
    check_space(folder, size, "what is saved")


def check_export_space(
    destination: Path, state: TrainingState, config: TrainConfig
) -> None:
    """Raise WriteError unless there is room for the model that a run hands over."""
    if config.training_method == "FINE_TUNE":
        written = list(state.transformer.parameters())
    else:
        written = list(state.learned().values())
    count = sum(weights.numel() for weights in written)
    size = 4 if config.output_dtype == "FLOAT_32" else 2
    check_space(destination.parent, size * count, "the exported model")
