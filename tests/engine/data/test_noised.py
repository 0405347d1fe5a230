"""Captions without their padding: as the model would have answered with it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from blockrate.core.blocks import BlockLayout
from blockrate.engine.data.noised import without_padding
from blockrate.engine.models import chroma
from blockrate.models.families import FAMILIES

SPEC = replace(FAMILIES["tiny-chroma"].spec, layout=BlockLayout(2, 2))


def captions(*lengths: int) -> dict[str, Tensor]:
    """Captions of 512 tokens, of which so many are seen."""
    stream = torch.Generator().manual_seed(0)
    embeds = torch.randn(len(lengths), 512, 32, generator=stream)
    mask = torch.arange(512)[None] < torch.tensor(lengths)[:, None]
    return {"prompt_embeds": embeds, "prompt_mask": mask}


@pytest.mark.parametrize(
    ("lengths", "kept", "masked"),
    [
        ((5,), 5, False),
        ((7, 7), 7, False),
        ((5, 7), 64, True),
        ((64, 2), 64, True),
        ((65, 40), 192, True),
        ((512, 512), 512, False),
    ],
)
def test_only_what_some_caption_has_is_kept(
    lengths: tuple[int, ...], kept: int, masked: bool
) -> None:
    """With 64 image tokens; what a mask hides brings all of them to a multiple of 128."""
    whole = captions(*lengths)
    seen = without_padding(whole, image_tokens=64)
    assert torch.equal(seen["prompt_embeds"], whole["prompt_embeds"][:, :kept])
    assert seen["prompt_embeds"].is_contiguous()
    assert ("prompt_mask" in seen) == masked
    if masked:
        assert torch.equal(seen["prompt_mask"], whole["prompt_mask"][:, :kept])
    assert whole["prompt_embeds"].shape[1] == 512


@pytest.mark.parametrize("image_tokens", [64, 1024, 2244, 3952])
@pytest.mark.parametrize(("lengths", "trims"), [((500, 3), True), ((5, 3), False)])
def test_masked_captions_come_with_the_image_to_a_multiple_of_128(
    image_tokens: int, lengths: tuple[int, int], trims: bool
) -> None:
    """Longer than the caption has room for, if that must be: nobody sees what is added."""
    whole = captions(*lengths)
    seen = without_padding(whole, image_tokens=image_tokens, trims=trims)
    length = seen["prompt_embeds"].shape[1]
    assert (length + image_tokens) % 128 == 0
    assert seen["prompt_mask"].dtype == torch.bool
    assert seen["prompt_mask"].sum(dim=1).tolist() == list(lengths)
    assert seen["prompt_mask"].shape[1] == length
    assert trims or length >= 512


def test_captions_without_a_mask_stay_whole() -> None:
    whole = {"prompt_embeds": torch.ones(2, 512, 8)}
    assert without_padding(whole, image_tokens=64) is whole


@pytest.mark.parametrize("lengths", [(5, 5), (3, 20)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_answer_and_gradients_are_those_with_the_padding(
    lengths: tuple[int, int], checkpointing: bool
) -> None:
    torch.manual_seed(0)
    model = chroma.random_transformer(SPEC)
    if checkpointing:
        model.enable_gradient_checkpointing()

    def learned(given: dict[str, Tensor]) -> dict[str, Any]:
        model.zero_grad()
        noisy = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(1))
        times = torch.tensor([0.2, 0.8])
        answer = chroma.predict(model, noisy, times, given, guidance=1.0)
        answer.square().mean().backward()  # type: ignore[no-untyped-call]
        gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
        return {**gradients, "answer": answer.detach()}

    whole = learned(captions(*lengths))
    seen = learned(without_padding(captions(*lengths), image_tokens=16))
    for name, expected in whole.items():
        torch.testing.assert_close(seen[name], expected, rtol=1e-4, atol=1e-6)
