"""BFL's names taken apart as diffusers takes them apart, where it can: two architectures at one width."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils

from blockrate.core.blocks import BlockLayout
from blockrate.engine.models.bfl_weights import rows_by_weight
from blockrate.models.families import FAMILIES, TransformerSpec
from blockrate.models.whole import _bfl_shapes, _shapes

ONE_EACH: dict[str, Any] = {"layout": BlockLayout(1, 1), "joint_attention_dim": 8}
CASES: dict[str, tuple[TransformerSpec, str]] = {
    "FLUX.1": (
        replace(FAMILIES["flux1-dev"].spec, **ONE_EACH),
        "convert_flux_transformer_checkpoint_to_diffusers",
    ),
    "FLUX.2": (
        replace(FAMILIES["tiny-flux2"].spec, layout=BlockLayout(2, 2)),
        "convert_flux2_transformer_checkpoint_to_diffusers",
    ),
    "Chroma": (
        replace(
            FAMILIES["chroma1-hd"].spec,
            **ONE_EACH,
            approximator_hidden_dim=16,
            approximator_layers=3,
        ),
        "convert_chroma_transformer_checkpoint_to_diffusers",
    ),
}


@pytest.mark.engine
@pytest.mark.parametrize("case", CASES)
def test_names_and_rows_are_those_of_diffusers(case: str) -> None:
    spec, name = CASES[case]
    convert: Callable[..., dict[str, Any]] = getattr(single_file_utils, name)
    stream = torch.Generator().manual_seed(0)
    # bytes: at full width they are a quarter of the memory, and rows tell as much
    tensors = {
        name: torch.randint(256, shape, generator=stream, dtype=torch.uint8)
        for name, shape in _bfl_shapes(spec)
    }
    found = {
        name: rows.of(tensors[rows.tensor][rows.start : rows.stop])
        for name, rows in rows_by_weight(spec).items()
    }
    assert {name: tuple(one.shape) for name, one in found.items()} == dict(
        _shapes(spec)
    )
    expected = convert(tensors)
    for name, tensor in found.items():
        assert torch.equal(tensor, expected.pop(name)), name
    assert not expected


def test_the_rows_of_a_fused_tensor_are_its_members_one_after_the_other() -> None:
    spec = replace(FAMILIES["tiny-chroma"].spec, layout=BlockLayout(1, 1))
    taken: dict[str, list[int]] = {}
    for rows in rows_by_weight(spec).values():
        whole = dict(_bfl_shapes(spec))[rows.tensor][0]
        numbers = range(whole)[rows.start : rows.stop]
        taken.setdefault(rows.tensor, []).extend(numbers)
    for tensor, shape in _bfl_shapes(spec):
        assert taken.pop(tensor) == list(range(shape[0])), tensor
    assert not taken
