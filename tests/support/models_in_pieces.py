"""A toy FLUX.1 whose weights several processes share, by FSDP2 over gloo, and what is saved of it."""

import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from peft import LoraConfig
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.profile import Profile
from blockrate.engine import export as export_module
from blockrate.engine.checkpoint import save_checkpoint
from blockrate.engine.ema import Ema
from blockrate.engine.export import export
from blockrate.engine.gathering import ALONE, Gathering
from blockrate.engine.models import flux1
from blockrate.engine.state import TrainingState
from support.toy_models import flux1 as toy_flux

CONFIG = TrainConfig(ema="CPU")


def saved_whole(folder: Path) -> None:
    """Save a model that one process holds."""
    _save(folder, ALONE, share=lambda model: None)


def save_in_pieces(folder: Path, *, processes: int) -> None:
    """Save the same model from several processes that share it."""
    folder.parent.mkdir(exist_ok=True)
    store = str(folder.with_suffix(".store"))
    context = multiprocessing.get_context("spawn")
    ranks = [
        context.Process(target=_save_piece, args=(rank, folder, store, processes))
        for rank in range(processes)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
        assert rank.exitcode == 0


def _save_piece(rank: int, folder: Path, store: str, processes: int) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=processes
    )
    try:
        _save(folder, Gathering(_whole, writes=rank == 0), share=_share)
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _share(model: Any) -> None:
    for block in (*model.transformer_blocks, *model.single_transformer_blocks):
        fully_shard(block)
    fully_shard(model)


# and put back after it: who comes next in this process has files of the usual size
@patch.object(export_module, "_SHARD_SIZE", "30KB")
def _save(
    folder: Path, gathering: Gathering, share: Callable[[nn.Module], None]
) -> None:
    """Save a LoRA with a checkpoint of it, and a whole transformer in several files."""
    write = partial(
        export,
        dtype=torch.bfloat16,
        metadata={"format": "pt"},
        gathering=gathering,
    )
    whole: Any = toy_flux()
    share(whole)
    write(folder / "whole", whole, training_method="FINE_TUNE", file_format="DIFFUSERS")
    adapted: Any = toy_flux()
    torch.manual_seed(0)
    adapted.add_adapter(
        LoraConfig(r=3, target_modules=["to_q", "proj_mlp"], init_lora_weights=False)
    )
    share(adapted)
    for form in ("DIFFUSERS_LORA", "KOHYA_LORA"):
        write(
            folder / f"{form}.safetensors",
            adapted,
            training_method="LORA",
            file_format=form,
        )
    save_checkpoint(
        folder,
        _state(adapted),
        CONFIG,
        step=1,
        total_steps=9,
        data="data",
        gathering=gathering,
    )


def _state(model: Any) -> TrainingState:
    """The state of a model after one step, whose gradients are its weights."""
    trained = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    optimizer = torch.optim.AdamW(
        [{"name": "transformer", "params": list(trained.values())}], lr=0.01
    )
    for parameter in trained.values():
        parameter.grad = parameter.detach().clone()
    optimizer.step()
    return TrainingState(
        transformer=SimpleNamespace(),
        family=flux1,
        device=torch.device("cpu"),
        optimizer=optimizer,
        trained=trained,
        blocks=dict.fromkeys(trained, "other"),
        formerly_trained={},
        ema=Ema(trained, decay=0.9),
        profile=Profile.of({}, BlockLayout(2, 2)),
    )
