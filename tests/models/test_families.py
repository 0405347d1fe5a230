"""The rows of the models, and sizes read from a diffusers config."""

from dataclasses import replace

import pytest

from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import ConfigError, FileError
from blockrate.models.families import (
    ARCHITECTURES,
    FAMILIES,
    Family,
    family_of,
    spec_from_config,
)

DEV = FAMILIES["flux1-dev"].spec
# transformer/config.json of black-forest-labs/FLUX.1-dev, as diffusers writes it.
DEV_CONFIG: dict[str, object] = {
    "_class_name": "FluxTransformer2DModel",
    "_diffusers_version": "0.30.0.dev0",
    "attention_head_dim": 128,
    "guidance_embeds": True,
    "in_channels": 64,
    "joint_attention_dim": 4096,
    "num_attention_heads": 24,
    "num_layers": 19,
    "num_single_layers": 38,
    "patch_size": 1,
    "pooled_projection_dim": 768,
}


def test_the_config_of_dev_is_the_row_of_dev() -> None:
    assert spec_from_config(DEV_CONFIG) == DEV
    assert DEV.hidden == 3072


def test_missing_keys_mean_diffusers_defaults() -> None:
    spec = spec_from_config({"_class_name": "FluxTransformer2DModel"})
    assert spec == FAMILIES["flux1-schnell"].spec == replace(DEV, guidance_embeds=False)


def test_a_pruned_model_says_so_itself() -> None:
    assert spec_from_config(DEV_CONFIG | {"num_layers": 8}).layout == BlockLayout(8, 38)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_rotary_axes_fill_a_head(family: Family) -> None:
    assert sum(family.spec.axes_dims_rope) == family.spec.head_dim
    assert family.title
    assert family.architecture in ARCHITECTURES


def test_the_toy_has_all_blocks_and_little_width() -> None:
    tiny = FAMILIES["tiny-flux1"].spec
    assert tiny.layout == BlockLayout(19, 38)
    assert tiny.hidden == 64


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {**DEV_CONFIG, "_class_name": "QwenImageTransformer2DModel"},
            "QwenImageTransformer2DModel, not a FluxTransformer2D",
        ),
        ({}, "model of unknown class"),
        (
            {**DEV_CONFIG, "in_channels": 128, "out_channels": 64},
            "FLUX.1 Depth and Canny do",
        ),
        ({**DEV_CONFIG, "patch_size": 2}, "input channels"),
        ({**DEV_CONFIG, "num_layers": "19"}, "num_layers is '19'"),
        ({**DEV_CONFIG, "num_layers": True}, "num_layers is True"),
        ({**DEV_CONFIG, "axes_dims_rope": 128}, "axes_dims_rope is 128"),
    ],
)
def test_another_architecture_is_a_file_error(
    config: dict[str, object], message: str
) -> None:
    with pytest.raises(FileError, match=message) as caught:
        spec_from_config(config, "my/config.json")
    assert caught.value.where == "my/config.json"
    assert caught.value.exit_code == 65
    assert caught.value.cure


def test_the_family_follows_the_type_and_the_name_schnell() -> None:
    assert family_of("FLUX_DEV_1", "black-forest-labs/FLUX.1-dev").name == "flux1-dev"
    assert family_of("FLUX_SCHNELL_1", "/models/my-flux").name == "flux1-schnell"
    assert (
        family_of("FLUX_DEV_1", "black-forest-labs/FLUX.1-Schnell").name
        == "flux1-schnell"
    )
    with pytest.raises(
        ConfigError, match=r"model_type: 'SDXL'.*FLUX_DEV_1, FLUX_SCHNELL_1"
    ):
        family_of("SDXL", "x")
