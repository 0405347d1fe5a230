"""A part of a model, loaded from its folder: by a library's own class, but only from the files that were checked.

A text encoder is handed over as a config and tensors, so transformers opens no folder: it would obey adapters, other
models' names and kernels that a config.json asks for. Nothing here asks the hub.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from blockrate.core.blocks import shortened
from blockrate.core.errors import FileError, is_full_memory
from blockrate.models.families import ARCHITECTURES
from blockrate.models.part_files import (
    UNCHANGED,
    checked_config,
    config_file,
    own_config,
    weight_files,
)
from blockrate.models.whole import (
    known_beside,
    refuse_names,
    refuse_wrong_names,
    tensors_of,
)

_AGAIN = "Download or copy the model again, as a whole."
# What a config may not decide: where weights come from, how they are computed, what is given back.
_NOT_OF_A_FILE = {
    "architectures",
    "dtype",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "transformers_version",
}

# how configs of before transformers 5 say what rope_parameters says today
_OLD_ROPE = {"rope_theta", "rope_scaling"}


def load_text_encoder(
    model_class: Any,
    part: str,
    folder: Path,
    architecture: str,
    dtype: torch.dtype,
    *,
    layers: int | None = None,
) -> Any:
    """Return a text encoder of transformers' ``model_class`` on the CPU, frozen and whole.

    ``layers``: read no more than the first so many. Raises FileError with the names of what is missing, left over or of
    another shape.
    """
    config = _text_config(model_class, part, folder, layers)
    _refuse_another_size(lambda: model_class(config), part, folder)
    prefix = ARCHITECTURES[architecture]["kinds"][part].get("prefix")
    tensors: dict[str, torch.Tensor] = {}
    for file in weight_files(part, folder):
        with safe_open(file, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118 (not a mapping)
                own = re.sub(prefix, "", name) if prefix else name
                if not _is_behind(own, layers):
                    tensors[own] = stream.get_tensor(name)
    _refuse_untied(part, folder, architecture, tensors)
    with _fitting(folder), without_bars():
        model, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            ignore_mismatched_sizes=True,  # they are told by name below
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
        )
    _refuse_report(part, folder, architecture, report)
    return model.requires_grad_(False)


def load_of_diffusers(
    model_class: Any, part: str, folder: Path, architecture: str, dtype: torch.dtype
) -> Any:
    """Return a part of diffusers' ``model_class`` on the CPU, frozen; raises as ``load_text_encoder`` does."""
    config = checked_config(part, folder)
    _refuse_another_size(lambda: model_class.from_config(config), part, folder)
    with _fitting(folder):
        model, report = model_class.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    _refuse_report(part, folder, architecture, report)
    return model.requires_grad_(False)


def _is_behind(name: str, layers: int | None) -> bool:
    """Whether a tensor lies in a layer behind the first so many."""
    layer = re.match(r"layers[.]([0-9]{1,9})[.]", name)
    return bool(layer and layers is not None and int(layer[1]) >= layers)


def _text_config(
    model_class: Any, part: str, folder: Path, layers: int | None = None
) -> Any:
    """Return the config of a text encoder, of the facts alone that its class knows and that a file may decide.

    ``layers``: the most that it may have; one with fewer is refused.
    """
    kind = model_class.config_class
    stated = own_config(checked_config(part, folder))
    known = (kind().to_dict().keys() | kind.attribute_map.keys()) - _NOT_OF_A_FILE
    if "rope_parameters" in known:
        known |= _OLD_ROPE
    facts = {}
    for key, value in stated.items():
        if key in known and not key.startswith("_"):
            facts[key] = value
    if layers is not None:
        facts |= _first_layers(facts, layers, str(config_file(part, folder)))
    try:
        return kind.from_dict(facts)
    except Exception as error:  # each class checks in ways of its own
        raise _no_model(part, folder, error) from error


def _first_layers(facts: Mapping[str, Any], layers: int, where: str) -> dict[str, Any]:
    """Return how a config states the first layers of its model."""
    there = facts.get("num_hidden_layers")
    if not isinstance(there, int) or there < layers:
        problem = f"num_hidden_layers is {shortened(repr(there))}, and at least {layers} are needed"
        raise FileError(
            where, problem, "Name the text encoder that belongs to this model."
        )
    first: dict[str, Any] = {"num_hidden_layers": layers}
    kinds = facts.get("layer_types")
    if isinstance(kinds, list):
        first["layer_types"] = kinds[:layers]
    return first


def _refuse_another_size(make: Callable[[], Any], part: str, folder: Path) -> None:
    """Refuse a config that makes no model, or one far larger than its weights, before memory is taken for it.

    ``make``: the model of the config, which costs nothing on the device that holds no numbers.
    """
    try:
        with torch.device("meta"):
            model = make()
    except Exception as error:  # of a library, about numbers that fit no model
        raise _no_model(part, folder, error) from error
    asked = sum(weights.numel() for weights in model.parameters())
    tensors = tensors_of(part, folder)
    held = sum(math.prod(facts.shape) for facts in tensors.values())
    if asked > 4 * held + 1_000_000:
        problem = f"asks for {asked:,} numbers, and the weights hold {held:,}"
        raise FileError(str(config_file(part, folder)), problem, UNCHANGED)


@contextmanager
def without_bars() -> Iterator[None]:
    """Let transformers draw no bars of its own: each would be many lines of the log."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled
    from transformers.utils import logging

    downloads_have_bars = not are_progress_bars_disabled()
    logging.disable_progress_bar()  # those of downloads, too
    try:
        yield
    finally:
        if downloads_have_bars:
            logging.enable_progress_bar()


@contextmanager
def _fitting(folder: Path) -> Iterator[None]:
    """Say of which folder the weights do not fit their config; a full memory is another matter."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if is_full_memory(error):
            raise
        problem = f"does not fit its config.json ({first_line(error)})"
        raise FileError(str(folder), problem, _AGAIN) from error


def _refuse_report(
    part: str, folder: Path, architecture: str, report: dict[str, Any]
) -> None:
    """Refuse what a library tells of a part that it has loaded, and would otherwise only write into its log."""
    unknown = [
        name
        for name in sorted(report["unexpected_keys"])
        if not known_beside(architecture, part, name)
    ]
    refuse_wrong_names(folder, sorted(report["missing_keys"]), unknown)
    mismatched = [str(row[0]) for row in report["mismatched_keys"]]
    refuse_names(folder, "has tensors of another shape", mismatched)


def _refuse_untied(
    part: str, folder: Path, architecture: str, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Refuse a file that keeps one tensor under several names with different numbers: not all of them are right."""
    names = ARCHITECTURES[architecture]["kinds"][part]["tied"]
    kept = [name for name in names if name in tensors]
    # as bytes: not every type can be compared
    rows = [(tensors[name].dtype, tensors[name].view(torch.uint8)) for name in kept]
    same = [one[0] == rows[0][0] and torch.equal(one[1], rows[0][1]) for one in rows]
    if not all(same):
        problem = "has different numbers under two names of one tensor"
        refuse_names(folder, problem, kept)


def _no_model(part: str, folder: Path, error: Exception) -> FileError:
    problem = f"makes no model ({first_line(error)})"
    return FileError(str(config_file(part, folder)), problem, UNCHANGED)


def first_line(error: Exception) -> str:
    """Return what a library says first, or the kind of its error."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
