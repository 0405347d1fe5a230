"""What saving costs a LoRA run at the default interval: seconds per save over the 30 minutes between saves.

The adapters and their optimizer state have full FLUX.1 size; the frozen base takes no memory. Goal: below 1 %.
"""

import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common import Times, arguments, scratch, spread, table
from torch import nn

from blockrate.config.train_config import TrainConfig
from blockrate.engine.checkpoint import save_checkpoint
from blockrate.engine.export import export, file_metadata
from blockrate.engine.intervals import SECONDS
from blockrate.engine.memory import dtype_of
from blockrate.engine.models import flux1
from blockrate.engine.models.common import ModelFiles
from blockrate.engine.models.flux1 import random_transformer
from blockrate.engine.state import TrainingState, make_training_state
from blockrate.models.families import FAMILIES


def main() -> None:
    """Print the share of a run that goes into saving, for the smallest and the largest usual LoRA."""
    rows = []
    with scratch() as folder:
        rounds = arguments(__doc__, rounds=7).rounds
        for label, changes in (
            ("rank 16, attention", {"layer_filter": ".to_q,.to_k,.to_v,.to_out.0"}),
            ("rank 16, every layer (default)", {}),
            ("rank 16, every layer, EMA", {"ema": "CPU"}),
            ("rank 64, every layer", {"lora_rank": 64}),
        ):
            config = TrainConfig.model_validate({"train_dtype": "FLOAT_32", **changes})
            rows.append([label, *costs(config, folder / "run", rounds)])
    header = [
        "LoRA of FLUX.1",
        "MiB a checkpoint",
        "seconds a checkpoint",
        "% of the run",
        "seconds an export",
        "% of the run",
    ]
    table("Saving, at one save in 30 minutes", header, rows)


def costs(config: TrainConfig, folder: Path, rounds: int) -> list[str]:
    """Return a row: MiB, seconds and share of the run of a checkpoint, then seconds and share of an export."""
    state = full_size_lora(config)
    interval = config.backup_after * SECONDS[config.backup_after_unit]
    checkpoints = Times()
    exports = Times()
    size = 0
    folder.mkdir(exist_ok=True)
    for step in range(1, rounds + 1):
        with checkpoints.measure():
            path = save_checkpoint(
                folder, state, config, step=step, total_steps=rounds, data=""
            )
        with exports.measure():
            export(
                folder / "lora.safetensors",
                state.transformer,
                training_method=config.training_method,
                file_format=config.output_model_format,
                dtype=dtype_of(config.output_dtype),
                metadata=file_metadata(config),
            )
        size = sum(file.stat().st_size for file in path.iterdir())
        shutil.rmtree(path)
    figures = [f"{size / 2**20:.0f}"]
    for times in (checkpoints, exports):
        shares = [100 * seconds / interval for seconds in times.wall]
        figures += [spread(times.wall, ".2f"), spread(shares, ".2f")]
    return figures


def full_size_lora(config: TrainConfig) -> TrainingState:
    """Return adapters of full FLUX.1 size after one optimizer step, on a base that is one zero seen many times."""
    with patch.object(flux1, "load_transformer", weightless_transformer):
        files = ModelFiles(flux1, FAMILIES["flux1-dev"].spec, {})
        state = make_training_state(files, config, torch.device("cpu"))
    for parameter in state.trained.values():
        parameter.grad = torch.randn_like(parameter)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return state


def weightless_transformer(*_: Any) -> nn.Module:
    """Return FLUX.1-dev with every weight a view of a single zero."""
    with torch.device("meta"):
        transformer: nn.Module = random_transformer(FAMILIES["flux1-dev"].spec)
    for module in transformer.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            zero = torch.zeros((), dtype=torch.bfloat16).expand(parameter.shape)
            setattr(module, name, nn.Parameter(zero, requires_grad=False))
    return transformer


if __name__ == "__main__":
    main()
