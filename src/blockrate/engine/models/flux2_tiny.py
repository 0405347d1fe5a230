"""What a FLUX.2 of toy width is made of beside its transformer: a language model of little width, and a VAE."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blockrate.engine.models import tiny
from blockrate.models.families import TransformerSpec

_TURNS = "{% for turn in messages %}"
# As short as a template can be that has what the real ones have: turns, an answer begun, no thinking.
_QWEN_TEMPLATE = (
    _TURNS + "<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
_MISTRAL_TEMPLATE = (
    "<s>" + _TURNS + "[{{ turn.role }}]"
    "{% for part in turn.content %}{{ part.text }}{% endfor %}[/{{ turn.role }}]{% endfor %}"
)
_QWEN_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_MISTRAL_SPECIALS = ("<unk>", "<s>", "</s>", "<pad>", "[IMG]", "[system]", "[/system]")


def make_tiny(
    folder: Path,
    spec: TransformerSpec,
    random_transformer: Callable[[TransformerSpec], Any],
    *,
    seed: int,
) -> Path:
    """Write a klein, or a dev where the transformer takes a guidance, and return its folder."""

    def pipeline() -> Any:
        from diffusers import (
            FlowMatchEulerDiscreteScheduler,
            Flux2KleinPipeline,
            Flux2Pipeline,
        )

        is_dev = spec.guidance_embeds
        width = spec.joint_attention_dim // 3
        texts = _mistral(width) if is_dev else _qwen(width)
        scheduler = FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True
        )
        parts = {
            **texts,
            "scheduler": scheduler,
            "vae": make_vae(),
            "transformer": random_transformer(spec),
        }
        return Flux2Pipeline(**parts) if is_dev else Flux2KleinPipeline(**parts)

    return tiny.save_pipeline(folder, pipeline, seed=seed)


@torch.no_grad()
def make_vae() -> Any:
    """A VAE with likeness between neighbours, and in its batch norm what its own patches of smooth images have."""
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8),
        latent_channels=32,
        norm_num_groups=4,
        sample_size=64,
    )
    tiny.smooth(vae)
    mode = vae.encode(tiny.smooth_images()).latent_dist.mode()
    patches = nn.functional.pixel_unshuffle(mode, 2)
    vae.bn.running_mean.copy_(patches.mean((0, 2, 3)))
    vae.bn.running_var.copy_(patches.var((0, 2, 3)))
    return vae.eval()


def _qwen(width: int) -> dict[str, Any]:
    from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = Qwen2TokenizerFast(
        vocab=_letters(_QWEN_SPECIALS),
        merges=[],
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = _QWEN_TEMPLATE
    config = Qwen3Config(
        vocab_size=len(tokenizer), num_hidden_layers=28, **_sizes(width)
    )
    return {"text_encoder": Qwen3ForCausalLM(config), "tokenizer": tokenizer}


def _mistral(width: int) -> dict[str, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        PreTrainedTokenizerFast,
    )

    letters = Tokenizer(models.BPE(vocab=_letters(_MISTRAL_SPECIALS), merges=[]))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=letters,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="left",
    )
    tokenizer.chat_template = _MISTRAL_TEMPLATE
    text = {"vocab_size": len(tokenizer), "num_hidden_layers": 31, **_sizes(width)}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "head_dim": 8}
    vision |= {"image_size": 64, "patch_size": 16}
    config = Mistral3Config(
        text_config={"model_type": "mistral", "sliding_window": None, **text},
        vision_config={"model_type": "pixtral", **vision},
        image_token_index=_MISTRAL_SPECIALS.index("[IMG]"),
        spatial_merge_size=2,
    )
    model = Mistral3ForConditionalGeneration(config)
    return {"text_encoder": model, "tokenizer": tokenizer}


def _sizes(width: int) -> dict[str, int | bool]:
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
    }


def _letters(specials: tuple[str, ...]) -> dict[str, int]:
    """A vocabulary of special tokens and every byte."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = [*specials, *sorted(ByteLevel.alphabet())]
    return {token: row for row, token in enumerate(tokens)}
