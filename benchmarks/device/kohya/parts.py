"""The parts of a step, timed wherever either trainer calls them, and the blocks that run."""

import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.transformers import transformer_flux
from work import Work

from device.kohya.contestant import BY_THREAD
from device.kohya.sd_scripts import SdScripts
from device.kohya.told import gradients

WORK = "forward and backward"


class Parts:
    """Seconds of each part so far, and how many blocks ran forwards: with checkpointing also those run again."""

    def __init__(self) -> None:
        names = (
            WORK,
            "optimizer",
            "clipping",
            "data",
            "gradient norms",
            "gradient copies",
        )
        self.work = {name: Work() for name in names}
        self.blocks = 0
        self._optimizer_begun: dict[int, float] = {}

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each part so far."""
        return {name: work.wall for name, work in self.work.items()}

    def watch(self, peer: SdScripts) -> None:
        """Begin. What is watched stays so to the end of the process."""
        from torch.optim.optimizer import (
            register_optimizer_step_post_hook,
            register_optimizer_step_pre_hook,
        )

        register_optimizer_step_pre_hook(self._before_optimizer)
        register_optimizer_step_post_hook(self._after_optimizer)
        for part, owner, name in timed_functions(peer):
            setattr(owner, name, self.work[part].timed(getattr(owner, name)))
        for owner, name in block_forwards(peer):
            setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            self.blocks += 1
            return function(*given, **named)

        return call

    def _before_optimizer(self, *_: Any) -> None:
        self._optimizer_begun[threading.get_ident()] = time.perf_counter()

    def _after_optimizer(self, optimizer: Any, *_: Any) -> None:
        thread = threading.get_ident()
        begun = self._optimizer_begun.get(thread, 0.0)
        self.work["optimizer"].wall += time.perf_counter() - begun
        me = BY_THREAD.get(thread)
        if me is None or me.model.network is None:
            return
        if me.model.optimizer is None:
            me.model.optimizer = optimizer
        if me.is_looked_at:
            me.seen = gradients(me)


def timed_functions(peer: SdScripts) -> list[tuple[str, Any, str]]:
    """Return the functions of each part: part, owner, name."""
    from accelerate import Accelerator

    from blockrate.engine import steps
    from blockrate.engine.preparation import Data

    trainer = peer.script.FluxNetworkTrainer
    network = peer.lora.LoRANetwork
    return [
        (WORK, FluxTransformer2DModel, "forward"),
        (WORK, peer.models.Flux, "forward"),
        (WORK, torch.Tensor, "backward"),
        ("clipping", Accelerator, "clip_grad_norm_"),
        ("clipping", steps, "clip_grads_with_norm_"),
        ("clipping", steps, "_gradient_norms"),
        ("data", peer.training.DatasetGroup, "__getitem__"),
        ("data", Data, "step_batches"),
        ("gradient norms", network, "update_grad_norms"),
        ("gradient copies", trainer, "all_reduce_network"),
    ]


def block_forwards(peer: SdScripts) -> list[tuple[Any, str]]:
    """Return the forward of every class of blocks: owner, name."""
    return [
        (peer.models.DoubleStreamBlock, "_forward"),
        (peer.models.SingleStreamBlock, "_forward"),
        (transformer_flux.FluxTransformerBlock, "forward"),
        (transformer_flux.FluxSingleTransformerBlock, "forward"),
    ]
