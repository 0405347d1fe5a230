"""What frozen blocks save in Chroma, counted on the real model: one network makes the modulation of every block."""

from collections.abc import Callable

import pytest
import torch
from diffusers import ChromaTransformer2DModel
from peft import LoraConfig
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from blockrate.core.blocks import BlockLayout, block_of
from blockrate.engine.models.chroma import predict
from blockrate.models.families import TransformerSpec, config_from_spec
from blockrate.models.module_table import modules
from blockrate.models.savings import Work, step_flops

pytestmark = pytest.mark.engine
IMAGE = 256
TEXT = 64
RANK = 16
SPEC = TransformerSpec(
    BlockLayout(4, 8),
    6,
    64,
    64,
    512,
    0,
    guidance_embeds=False,
    axes_dims_rope=(16, 24, 24),
    architecture="Chroma",
    approximator_num_channels=64,
    approximator_hidden_dim=640,
    approximator_layers=3,
)
LAST = ("single_block_6", "single_block_7")
LAYER = "distilled_guidance_layer.layers.1"
Keep = Callable[[str], bool]
CASES: dict[str, Keep] = {
    "everything": lambda name: True,
    "blocks": lambda name: block_of(name) is not None,
    "last two": lambda name: block_of(name) in LAST,
    "last two and other": lambda name: (block_of(name) or LAST[0]) in LAST,
    "doubles": lambda name: (block_of(name) or "").startswith("double"),
    "the approximator": lambda name: name.startswith("distilled_guidance_layer"),
    "one layer of it": lambda name: name.startswith(LAYER),
    "feed forward": lambda name: "proj_mlp" in name or "ff" in name,
    "last layer": lambda name: name == "proj_out",
}


def make_model() -> ChromaTransformer2DModel:
    with torch.device("meta"):
        return ChromaTransformer2DModel(**config_from_spec(SPEC))


def counted(model: ChromaTransformer2DModel, *, checkpointing: bool = True) -> int:
    """FLOPs of a step as the trainer takes it, the mask in every block."""
    if checkpointing:
        model.enable_gradient_checkpointing()
    model.train()
    with (
        torch.device("meta"),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        given = {
            "prompt_embeds": torch.zeros(1, TEXT, SPEC.joint_attention_dim),
            "prompt_mask": torch.ones(1, TEXT, dtype=torch.bool),
        }
        noisy = torch.zeros(1, 16, 32, 32)
        answer = predict(model, noisy, torch.zeros(1), given, guidance=1.0)
        answer.square().mean().backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


def fine_tuned(case: str, *, checkpointing: bool = True) -> int:
    model = make_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(CASES[case](name.rpartition(".")[0]))
    return counted(model, checkpointing=checkpointing)


@pytest.mark.parametrize("case", CASES)
def test_the_arithmetic_of_a_fine_tune_is_what_is_counted(case: str) -> None:
    trained = {module.name for module in modules(SPEC) if CASES[case](module.name)}
    predicted = step_flops(SPEC, trained, Work(IMAGE, TEXT))
    assert predicted == pytest.approx(fine_tuned(case), rel=0.001)


@pytest.mark.parametrize("case", CASES)
def test_the_arithmetic_of_a_lora_is_what_is_counted(case: str) -> None:
    names = [
        module.name
        for module in modules(SPEC)
        if module.linear and CASES[case](module.name)
    ]
    model = make_model()
    pattern = "|".join(name.replace(".", r"\.") for name in names)
    model.add_adapter(LoraConfig(r=RANK, target_modules=pattern))
    predicted = step_flops(SPEC, names, Work(IMAGE, TEXT, rank=RANK))
    assert predicted == pytest.approx(counted(model), rel=0.01)


def test_training_the_approximator_too_undoes_most_of_what_frozen_blocks_save() -> None:
    every, with_other, alone = (
        fine_tuned(case, checkpointing=False)
        for case in ("everything", "last two and other", "last two")
    )
    assert with_other / every == pytest.approx(0.76, abs=0.03)
    assert alone / every == pytest.approx(0.43, abs=0.03)
