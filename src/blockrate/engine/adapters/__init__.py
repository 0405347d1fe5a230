"""The kinds of adapters that can be trained in place of the weights: each is one module with the same functions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from blockrate.config.train_config import TrainConfig
from blockrate.engine.adapters import lora
from blockrate.engine.gathering import Gathering


class AdapterModule(Protocol):
    """The functions that the module of each kind of adapter has."""

    def read_start(self, config: TrainConfig) -> Mapping[str, Any]:
        """Return what the file to start from holds, proven to fit; nothing without one. Loads no model."""

    def add_learned(
        self, transformer: nn.Module, config: TrainConfig, weights: Mapping[str, Tensor]
    ) -> dict[str, nn.Parameter]:
        """Choose modules, put adapters in, and return the parameters of all of them by name.

        ``weights``: what an earlier session has learned; without any, adapters begin as their file or the seed says.
        """

    def adds_by(self, names: Sequence[str]) -> list[str]:
        """Return those of the learned parameters that all of it acts through: while they are zero, nothing does."""

    def write(
        self,
        path: Path,
        transformer: nn.Module,
        *,
        architecture: str,
        file_format: str,
        dtype: torch.dtype,
        metadata: Mapping[str, str],
        at_zero: Mapping[str, Any],
        gathering: Gathering,
    ) -> None:
        """Write the adapters of a transformer, and those ``at_zero``, as a file that applies as they were trained.

        Every process that shares the transformer calls it, and one writes, see ``Gathering``.
        """

    def adapters_at_zero(
        self, transformer: nn.Module, config: TrainConfig
    ) -> Mapping[str, Any]:
        """Return adapters that change nothing for the modules that are frozen for their block's rate alone."""


# By the training method of a config; the methods that are not here train the weights.
ADAPTERS: dict[str, AdapterModule] = {"LORA": lora}
