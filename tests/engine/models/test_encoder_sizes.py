"""What the plan knows of text encoders, beside those of the published sizes and those that a toy really loads."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    MistralConfig,
    MistralModel,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from blockrate.config.train_config import TrainConfig
from blockrate.engine.models import flux1
from blockrate.engine.models.flux2_text import KINDS
from blockrate.engine.models.locate import locate
from blockrate.models.encoders import (
    CAPTION_BYTES,
    Encoder,
    encoders_of,
    picture_bytes,
)
from blockrate.models.families import FAMILIES

TOKENS = 512
# without types of its own
watched: Any = StorageWeakRef


def clip() -> Any:
    return CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            vocab_size=49408,
            max_position_embeddings=77,
            projection_dim=768,
        )
    )


def t5() -> Any:
    return T5EncoderModel(
        T5Config(
            d_model=4096,
            d_kv=64,
            d_ff=10240,
            num_layers=24,
            num_heads=64,
            vocab_size=32128,
            feed_forward_proj="gated-gelu",
        )
    )


def qwen(width: int, middle: int) -> Any:
    return Qwen3Model(
        Qwen3Config(
            hidden_size=width,
            intermediate_size=middle,
            num_hidden_layers=max(KINDS["qwen3"].states) + 1,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            vocab_size=151936,
        )
    )


def mistral() -> Any:
    return MistralModel(
        MistralConfig(
            hidden_size=5120,
            intermediate_size=32768,
            num_hidden_layers=max(KINDS["mistral3"].states) + 1,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            vocab_size=131072,
        )
    )


# by the model, and the part of it
PUBLISHED: dict[str, tuple[str, str, Callable[[], Any]]] = {
    "CLIP": ("flux1-dev", "text_encoder", clip),
    "T5": ("flux1-dev", "text_encoder_2", t5),
    "T5 of Chroma": ("chroma1-hd", "text_encoder", t5),
    "Qwen3 4B": ("flux2-klein-base-4b", "text_encoder", lambda: qwen(2560, 9728)),
    "Qwen3 8B": ("flux2-klein-base-9b", "text_encoder", lambda: qwen(4096, 12288)),
    "Mistral": ("flux2-dev", "text_encoder", mistral),
}


def counted(model: nn.Module) -> Encoder:
    """What a model is, as the engine would make it smaller."""
    blocks = next(one for one in model.modules() if isinstance(one, nn.ModuleList))
    linears = {
        name: module.weight.numel()
        for name, module in blocks.named_modules()
        if isinstance(module, nn.Linear)
    }
    is_t5 = isinstance(model, T5EncoderModel)
    kept = [size for name, size in linears.items() if re.search(r"\bwo$", name)]
    return Encoder(
        sum(weights.numel() for weights in model.parameters()),
        sum(linears.values()),
        len(blocks),
        sum(kept) if is_t5 else 0,
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_plan_knows_the_encoders_of_published_models(name: str) -> None:
    model, part, make = PUBLISHED[name]
    with torch.device("meta"):
        found = counted(make())
    assert encoders_of(FAMILIES[model].spec)[part] == found


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that were alive at once, of what was made inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.sizes: dict[int, tuple[Any, int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        before = {
            tensor.untyped_storage()._cdata
            for tensor in tree_leaves((args, kwargs))
            if isinstance(tensor, Tensor)
        }
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in before:
                    alive = watched(storage)
                    self.sizes[storage._cdata] = alive, storage.nbytes()
        gone = [key for key, (alive, _) in self.sizes.items() if alive.expired()]
        for key in gone:
            del self.sizes[key]
        self.peak = max(self.peak, sum(size for _, size in self.sizes.values()))
        return made


@pytest.mark.cases(2)
@pytest.mark.engine
@pytest.mark.parametrize("name", PUBLISHED)
def test_one_caption_takes_no_more_than_the_plan_counts(name: str) -> None:
    _, _, make = PUBLISHED[name]
    tokens = 77 if name == "CLIP" else TOKENS
    with FakeTensorMode(), torch.no_grad():
        model = make().eval()
        given = torch.zeros(1, tokens, dtype=torch.long)
        seen = torch.ones(1, tokens, dtype=torch.long)
        wishes: dict[str, Any] = {"attention_mask": seen}
        if model.config.model_type in KINDS:
            wishes |= {"output_hidden_states": True, "use_cache": False}
        with Alive() as alive:
            model(input_ids=given, **wishes)
    assert 0 < alive.peak <= CAPTION_BYTES


@pytest.mark.engine
@pytest.mark.parametrize(
    ("make", "channels"), [(AutoencoderKL, 16), (AutoencoderKLFlux2, 32)]
)
def test_a_picture_takes_what_the_plan_counts(make: Any, channels: int) -> None:
    side = 256
    with FakeTensorMode(), torch.no_grad():
        vae = make(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
        picture = torch.zeros(1, 3, side, side)
        with Alive() as alive:
            vae.encode(picture).latent_dist.mode()
    weights = sum(weights.nbytes for weights in vae.parameters())
    told = picture_bytes("FLOAT_32", side * side, on_card=False)
    assert weights + alive.peak == pytest.approx(told, rel=0.01)


@pytest.mark.parametrize(
    "form", ["FLOAT_32", "BFLOAT_16", "FLOAT_16", "FLOAT_8", "INT_8"]
)
@pytest.mark.parametrize("train_dtype", ["BFLOAT_16", "FLOAT_32"])
def test_the_plan_knows_what_loaded_encoders_take(
    original: Path, tmp_path: Path, form: str, train_dtype: str
) -> None:
    config = TrainConfig.model_validate(
        {
            "base_model_name": str(original),
            "cache_dir": str(tmp_path),
            "train_dtype": train_dtype,
            "text_encoder": {"weight_dtype": form},
            "text_encoder_2": {"weight_dtype": form},
        }
    )
    cpu = torch.device("cpu")
    plain = config.model_copy(deep=True)
    for part in (plain.text_encoder, plain.text_encoder_2):
        part.weight_dtype = "FLOAT_32"
    whole = flux1.load_text_encoders(locate(plain), plain, cpu)
    found = flux1.load_text_encoders(locate(config), config, cpu)
    for name in ("clip", "t5"):
        sizes = counted(getattr(whole, name))
        model = getattr(found, name)
        taken = sum(weights.nbytes for weights in model.parameters())
        told = sizes.weight_bytes(form, train_dtype)
        # in 8 bits those of Linears may be, too, and T5's table of distances
        beside = sum(
            weights.numel()
            for key, weights in model.named_parameters()
            if re.search("bias", key)
        )
        assert told - 4 * beside <= taken <= told, (name, told, taken)
