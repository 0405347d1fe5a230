"""What a probe measures, held against truths: full gradients, Adam's own first step, a model that knows it all."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from support import toy_models as toy
from torch import Tensor

from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import OTHER, block_of
from blockrate.engine.adapters import lora
from blockrate.engine.adapters.sketch import Sketch
from blockrate.engine.data.halves import (
    FIRST,
    GROUPS,
    HELD_OUT,
    SECOND,
    Group,
    ProbeBatch,
)
from blockrate.engine.measuring import (
    Readings,
    blocks_found,
    measure,
    total_found,
)

pytestmark = pytest.mark.engine
RANK = 4


def adapted(**options: Any) -> FluxTransformer2DModel:
    model = toy.flux1()
    exact = {"train_dtype": "FLOAT_32", "lora_alpha": 2.0}
    values = {"lora_rank": RANK, **exact, **options}
    lora.add_learned(model, TrainConfig.model_validate(values), {})
    return model


def groups(batches: int = 16, *, held_out: bool = False) -> list[Group]:
    """Groups without pictures: the loss is made up."""

    def part(number: int, group: int) -> list[ProbeBatch]:
        size = batches // GROUPS // 2
        first = group * size
        return [
            ProbeBatch(number, first + place, (), (), 1 / size) for place in range(size)
        ]

    return [
        Group(
            part(HELD_OUT, group) if held_out and group else [],
            part(FIRST, group),
            part(SECOND, group),
        )
        for group in range(GROUPS)
    ]


def draw(batch: ProbeBatch) -> int:
    """What stands for a batch's noise and times."""
    return 1000 * batch.part + batch.number


def predict(model: Any, seed: int) -> Tensor:
    predicted: Tensor = model(**toy.inputs(seed))[0]
    return predicted


def loss_of(
    model: Any,
    target_of: Callable[[ProbeBatch, Tensor], Tensor],
    batch: ProbeBatch,
) -> Tensor:
    predicted = predict(model, draw(batch))
    return (predicted - target_of(batch, predicted.detach())).square().mean()


def ones(_batch: ProbeBatch, predicted: Tensor) -> Tensor:
    return torch.ones_like(predicted)


def own(_batch: ProbeBatch, predicted: Tensor) -> Tensor:
    return predicted


def noisy(seed: int, batch: ProbeBatch, predicted: Tensor) -> Tensor:
    """The model's own answer, and noise that says nothing."""
    stream = torch.Generator().manual_seed(77_777 + 10_000 * seed + draw(batch))
    return predicted + torch.randn(predicted.shape, generator=stream)


def measured(
    model: Any, target_of: Callable[[ProbeBatch, Tensor], Tensor], **kind: Any
) -> tuple[Sketch, Readings]:
    sketch = Sketch(model)
    readings = measure(sketch, groups(**kind), partial(loss_of, model, target_of))
    sketch.close()
    return sketch, readings


def test_the_sketch_is_on_average_the_full_gradients_square() -> None:
    """Of each kind of layer, over 200 draws of the first factors; it hangs on how the product draws them."""
    model = toy.flux1(1, 1)
    model.requires_grad_(True)
    toy.backward(model)
    truth = {
        name.removesuffix(".weight"): float(parameter.grad.square().sum())
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and name.endswith(".weight")
    }
    model = toy.flux1(1, 1)
    lora.add_adapters(model, TrainConfig(lora_rank=RANK, lora_alpha=2.0))
    layers = dict(model.named_modules())
    names = [name for name in truth if hasattr(layers[name], "lora_A")]
    assert len(names) > 20
    sums = dict.fromkeys(names, 0.0)
    draws = 200
    stream = torch.Generator().manual_seed(1)
    for _ in range(draws):
        for name in names:
            layer: Any = layers[name]
            down, _up = lora._first_values(layer.base_layer, RANK, stream)
            layer.lora_A["default"].weight.data.copy_(down)
        model.zero_grad()
        toy.backward(model)
        for name in names:
            layer = layers[name]
            gradient = layer.lora_B["default"].weight.grad
            factor = 3 * layer.in_features / RANK / layer.scaling["default"] ** 2
            sums[name] += float(gradient.square().sum()) * factor / draws
    for kind in ("double_block_0", "single_block_0", OTHER):
        members = [name for name in names if (block_of(name) or OTHER) == kind]
        found = sum(sums[name] for name in members)
        assert found == pytest.approx(sum(truth[name] for name in members), rel=0.05)


def test_gradient_norms_are_those_of_the_weights() -> None:
    """In one draw: of 600 numbers the spread of a block is some percent."""
    model = toy.flux1()
    model.requires_grad_(True)
    squares = dict.fromkeys(["double_block_0", "single_block_2"], 0.0)
    for batch in [*groups()[0].first, *groups()[0].second]:
        model.zero_grad()
        loss_of(model, ones, batch).backward()  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            block = block_of(name)
            if block in squares and name.endswith("weight") and parameter.ndim == 2:
                assert parameter.grad is not None
                squares[block] += float(parameter.grad.square().sum()) / 4
    model = adapted()
    sketch = Sketch(model)
    for part in (groups()[0].first, groups()[0].second):
        sketch.mean_gradient(part, partial(loss_of, model, ones))
    norms = dict(zip(sketch.blocks, sketch.gradient_norms(), strict=True))
    for block, square in squares.items():
        assert norms[block] == pytest.approx(square**0.5, rel=0.25)


def test_a_gain_is_the_fall_by_adams_own_first_step() -> None:
    """On the other half: the oracle is torch's AdamW with a small rate, and the loss itself, before and after."""
    rate = 1e-4
    kind = {"layer_filter": "attn.to_q,attn.to_v"}
    _, readings = measured(adapted(**kind), ones)
    falls = []
    for step_by, seen_by in ((FIRST, SECOND), (SECOND, FIRST)):
        model = adapted(**kind)
        ups = [one for name, one in model.named_parameters() if "lora_B" in name]
        adam = torch.optim.AdamW(ups, lr=rate, eps=1e-30, weight_decay=0)
        before = half_loss(model, step_by)
        before.backward()  # type: ignore[no-untyped-call]
        before = half_loss(model, seen_by)
        adam.step()
        fall = (before - half_loss(model, seen_by)).detach()
        falls.append(float(fall) / rate)
    assert float(readings.gain.sum()) == pytest.approx(sum(falls) / 2, rel=0.02)


def half_loss(model: Any, part: int) -> Tensor:
    batches = [batch for group in groups() for batch in group[1 + part]]
    losses = [loss_of(model, ones, batch) for batch in batches]
    return torch.stack(losses).mean()


def test_a_model_that_answers_exactly_right_has_nothing_to_gain() -> None:
    sketch, readings = measured(adapted(), own)
    found = blocks_found(sketch, readings)
    assert [one.gain for one in found.values()] == [0.0] * len(found)
    assert [one.error for one in found.values()] == [0.0] * len(found)
    assert not total_found(readings, has_halves=True).is_found


@pytest.mark.parametrize("seed", range(2))
def test_noise_that_says_nothing_is_no_gain(seed: int) -> None:
    _, readings = measured(adapted(seed=seed), partial(noisy, seed))
    total = total_found(readings, has_halves=True)
    assert abs(total.gain) < 3 * total.error
    # where there is something it is 1.5, and a sum of absolute values is as large for noise
    assert abs(total.gain) < 0.15


def test_what_only_one_block_can_learn_is_all_in_that_block() -> None:
    model = adapted(layer_filter_preset="blocks")
    for block in model.transformer_blocks:
        pass_by(block, double=True)
    for number, block in enumerate(model.single_transformer_blocks):
        if number != 1:
            pass_by(block, double=False)
    sketch, readings = measured(model, ones)
    found = blocks_found(sketch, readings)
    assert found["single_block_1"].gain > 3 * found["single_block_1"].error > 0
    others = {name: one for name, one in found.items() if name != "single_block_1"}
    assert len(others) == 4
    assert {one.gain for one in others.values()} == {0.0}


def pass_by(block: Any, *, double: bool) -> None:
    def forward(
        hidden_states: Tensor, encoder_hidden_states: Tensor, **_: Any
    ) -> tuple[Tensor, Tensor]:
        return encoder_hidden_states, hidden_states

    assert double or hasattr(block, "proj_mlp")
    block.forward = forward


@pytest.mark.parametrize(("held_out", "to"), [(True, "validation"), (False, "halves")])
def test_what_the_same_picture_teaches_carries_over(held_out: bool, to: str) -> None:
    model = adapted()

    def of_one_picture(batch: ProbeBatch) -> Tensor:
        predicted = predict(model, 0)
        target = 1 + noisy(0, batch, torch.zeros_like(predicted))
        return (predicted - target).square().mean()

    sketch = Sketch(model)
    readings = measure(sketch, groups(held_out=held_out), of_one_picture)
    total = total_found(readings, has_halves=True)
    assert total.transfer_to == to
    assert total.transfer == pytest.approx(1.0, abs=0.1)


def opposite(batch: ProbeBatch, predicted: Tensor) -> Tensor:
    """Each part of the pictures wants something of its own: nothing of one helps on another."""
    stream = torch.Generator().manual_seed(batch.part)
    return predicted + torch.randn(predicted.shape[1:], generator=stream)


def test_what_halves_do_not_have_in_common_does_not_carry_over() -> None:
    _, readings = measured(adapted(), opposite, held_out=True)
    held_out = total_found(readings, has_halves=True)
    assert held_out.transfer is not None
    assert held_out.transfer < 0.5
    assert total_found(readings, has_halves=False).transfer_to == "validation"


def test_halves_of_the_same_pictures_tell_nothing_of_others() -> None:
    _, readings = measured(adapted(), ones)
    total = total_found(readings, has_halves=False)
    assert total.transfer is None
    assert total.transfer_to == ""


def test_weights_and_random_numbers_stay_as_they_are_and_no_gradient_is_left() -> None:
    model = adapted()
    before = toy.weights(model)
    torch.manual_seed(5)
    numbers = torch.get_rng_state()
    measured(model, ones)
    assert not toy.changed(model, before)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_same_is_measured_twice_and_frozen_blocks_are_measured() -> None:
    sketch, one = measured(adapted(), ones)
    _, two = measured(adapted(), ones)
    assert torch.equal(one.gain, two.gain)
    assert sketch.blocks[-1] == OTHER
    assert len(sketch.blocks) == 6


def test_a_batch_that_gives_no_number_is_named() -> None:
    from blockrate.core.errors import NotANumberError

    def nan(_batch: ProbeBatch, predicted: Tensor) -> Tensor:
        return torch.full_like(predicted, torch.nan)

    with pytest.raises(NotANumberError, match=r"probe: .*not a number"):
        measured(adapted(), nan)
