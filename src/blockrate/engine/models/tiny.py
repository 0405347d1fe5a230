"""What models of toy width are made of: real classes, tokenizers made on the spot, nothing downloaded.

For the demo, tests and benchmarks: the layout on disk, the names and the shapes of real ones, in seconds on a CPU.
"""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blockrate.engine.models.from_folder import without_bars
from blockrate.run.durable import commit_folder, make_folder, temporary_beside

# Words that captions of photographs are made of; anything else is spelt letter by letter.
_TEXT = """a photograph of a cat asleep on a red sofa soft window light an orange cat looks at the camera close portrait
a cup of coffee on a wooden table beside an open book a rocket stands on its launch pad under a blue sky an astronaut in
a white suit smiles the surface of the moon grey craters a brick wall with rough texture warm sun a flower with yellow
petals in a dark garden coins on a black cloth seen from above a woman in a coat mountains and a lake golden hour"""
_WORDS = Counter(_TEXT.split())


def save_pipeline(folder: Path, make: Callable[[], Any], *, seed: int) -> Path:
    """Write the pipeline that ``make`` gives as a diffusers folder, and return it. The same for a seed.

    Raises WriteError, and leaves nothing behind when it fails.
    """
    make_folder(folder.parent)
    temporary = temporary_beside(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = make()
    with without_bars():
        pipeline.save_pretrained(temporary)
    commit_folder(temporary, folder)
    return folder


@torch.no_grad()
def make_vae() -> Any:
    """A VAE whose random latents have what trained ones have: likeness between neighbours, mean 0 and variance 1.

    Without it there is less to learn: 60 LoRA steps on photographs lower the loss by 0.22 instead of 0.34.
    """
    from diffusers import AutoencoderKL

    blocks = {
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }
    sizes = {"block_out_channels": [8] * 4, "latent_channels": 16, "norm_num_groups": 4}
    flux1 = {
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    vae = AutoencoderKL(**blocks, **sizes, **flux1)
    smooth(vae)
    # (16, images * positions)
    means = vae.encode(smooth_images()).latent_dist.mode().transpose(0, 1).flatten(1)
    last = vae.encoder.conv_out
    factor = 1 / (means.std(1) * vae.config.scaling_factor)
    last.weight[:16] *= factor[:, None, None, None]
    last.bias[:16] = (last.bias[:16] - means.mean(1)) * factor + vae.config.shift_factor
    return vae


@torch.no_grad()
def smooth(vae: Any) -> None:
    """Let each kernel of a VAE's encoder weigh a pixel like its neighbours."""
    for layer in vae.encoder.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.copy_(
                layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight)
            )


def smooth_images() -> torch.Tensor:
    """Return random images (8, 3, 128, 128) in -1..1 whose neighbours are alike, as those of photographs are."""
    coarse = torch.randn(8, 3, 8, 8)
    fine = nn.functional.interpolate(coarse, size=(128, 128), mode="bicubic")
    return fine.clamp(-1, 1)


def make_clip(width: int) -> dict[str, Any]:
    """Return CLIP of this width and its tokenizer, by the names of a pipeline's parts."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer(*_byte_pairs(), model_max_length=77)
    sizes = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        **sizes,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return {"text_encoder": CLIPTextModel(config), "tokenizer": tokenizer}


def make_t5(width: int, *, place: str = "_2") -> dict[str, Any]:
    """Return T5 of this width and its tokenizer, by the names of a pipeline's parts; ``place``: their end."""
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    tokenizer = T5TokenizerFast(_unigrams(), extra_ids=0, model_max_length=512)
    sizes = {
        "d_model": width,
        "d_kv": 8,
        "d_ff": 2 * width,
        "num_layers": 2,
        "num_heads": 4,
    }
    config = T5Config(
        vocab_size=len(tokenizer), **sizes, feed_forward_proj="gated-gelu"
    )
    return {
        f"text_encoder{place}": T5EncoderModel(config),
        f"tokenizer{place}": tokenizer,
    }


def _byte_pairs() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's kind of vocabulary: every byte, inside a word and at its end, and the merges that spell our words.

    Not trained by the tokenizers library, whose trainers break ties by a random hash: a seed must fix the folder.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    merges: dict[tuple[str, str], None] = {}
    for word in _WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merges[pieces[0], pieces[1]] = None
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    letters = sorted(ByteLevel.alphabet())
    tokens = [
        "<|startoftext|>",
        "<|endoftext|>",
        *letters,
        *(f"{letter}</w>" for letter in letters),
    ]
    return {
        token: row
        for row, token in enumerate(dict.fromkeys([*tokens, *map("".join, merges)]))
    }, list(merges)


def _unigrams() -> list[tuple[str, float]]:
    """T5's kind of vocabulary: printable ASCII, and our words with the logarithm of how often they occur."""
    words = [
        (f"\u2581{word}", round(math.log(count / _WORDS.total()), 4))
        for word, count in _WORDS.items()
    ]
    letters = [(letter, -12.0) for letter in ["\u2581", *map(chr, range(33, 127))]]
    return [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters, *words]
