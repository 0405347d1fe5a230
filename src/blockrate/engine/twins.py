"""Samples by the distilled twin of the model that trains: its weights take the place of the frozen ones while it draws.

So no second model is in memory, on the card or beside it, and adapters stay where they are. The frozen weights come
back from the files they were loaded from, cast as they were then: every bit is as it was.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blockrate.config.previews import refuse_previews, twin_config, twins_of
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import plain_name
from blockrate.core.errors import FileError
from blockrate.engine.memory import dtype_of
from blockrate.engine.models.common import ModelFiles, weights_in
from blockrate.engine.models.few_bits import PackedLinear
from blockrate.engine.models.locate import locate
from blockrate.engine.state import TrainingState
from blockrate.models.part_files import part_files
from blockrate.models.savings import FEW_BITS

_PART = "transformer"
Stamps = Mapping[Path, tuple[int, int]]  # size and time of change


@dataclass(frozen=True)
class Twin:
    """A model to draw by, and the one that trains. ``own_stamps``: its files as they were when they were looked at."""

    files: ModelFiles
    own: ModelFiles
    own_stamps: Stamps


def find_twins(
    config: TrainConfig, own: ModelFiles, **told: Callable[..., None]
) -> dict[str, Twin]:
    """Return what samples are drawn by, by name; what only the hub has is downloaded. Raises as ``locate``."""
    twins = {}
    for name in twins_of(config):
        files = locate(twin_config(config, name), **told)
        twins[name] = Twin(files, own, _stamps(own))
    # the files of a twin of the hub, which have come by now, may say what its name did not
    found = {name: twin.files.spec for name, twin in twins.items()}
    refuse_previews(config, own.spec, found)
    return twins


@contextmanager
def drawing_by(twin: Twin, state: TrainingState, config: TrainConfig) -> Iterator[None]:
    """Let a twin's weights be the frozen ones; at the end they are those of the model again.

    Raises FileError, and changes nothing, where the model's own files are not those that were loaded.
    """
    if _stamps(twin.own) != twin.own_stamps:
        problem = "has changed since the run began, so that it could not come back after a preview"
        cure = "Stop the run and start it again: it goes on from its checkpoint."
        raise FileError(str(twin.own.parts[_PART]), problem, cure)
    form = config.transformer.weight_dtype
    dtype = dtype_of(config.train_dtype if form in FEW_BITS else form)
    state.weights_are_whole = False
    try:
        _fill(state.transformer, twin.files, dtype)
        yield
    finally:
        # what fails from here on ends the run
        state.weights_are_whole = False
        _fill(state.transformer, twin.own, dtype)
        state.weights_are_whole = True


@torch.no_grad()
def _fill(transformer: Any, files: ModelFiles, dtype: torch.dtype) -> None:
    """Put the weights of a model's files into the frozen parameters of a transformer, one after the other."""
    frozen: dict[str, Callable[[Tensor], object]] = {}
    for name, parameter in transformer.named_parameters():
        if ".lora_" not in name:
            own = plain_name(name).replace(".base_layer.", ".")
            frozen[own] = _filling(transformer, name, parameter)
    # by way of the precision that it was loaded in, also where 8 bits are kept of it
    for name, tensor in weights_in(files, dtype):
        frozen.pop(name)(tensor)
    assert not frozen, (
        f"no weights for {list(frozen)[:3]}; check_transformer refuses it"
    )


def _filling(
    transformer: Any, name: str, parameter: Tensor
) -> Callable[[Tensor], object]:
    """Return what puts other values into a parameter."""
    module, _, of = name.rpartition(".")
    owner = transformer.get_submodule(module)
    if of == "weight" and isinstance(owner, PackedLinear):
        return owner.fill
    return parameter.data.copy_


def _stamps(files: ModelFiles) -> Stamps:
    stamps = {}
    for file in part_files(_PART, files.parts[_PART]):
        state = file.stat()
        stamps[file] = (state.st_size, state.st_mtime_ns)
    return stamps
