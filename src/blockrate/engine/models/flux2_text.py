"""FLUX.2's captions: a language model's hidden states, by the model's own chat template.

klein has Qwen3, dev has Mistral. Only as many layers are loaded as are asked: the last state that is taken must not be
the model's last, which transformers would norm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import FileError
from blockrate.engine.memory import release
from blockrate.engine.models import common
from blockrate.engine.models.common import ModelFiles
from blockrate.engine.models.from_folder import first_line, load_text_encoder
from blockrate.engine.models.tokenizers import load_tokenizer
from blockrate.models.families import ARCHITECTURES
from blockrate.models.part_files import config_file, read_config

_ARCHITECTURE = "FLUX.2"
LENGTH: int = ARCHITECTURES[_ARCHITECTURE]["caption_tokens"]


@dataclass(frozen=True)
class Kind:
    """A language model. ``states``: which hidden states are taken; ``text_of``: a caption in its template."""

    states: tuple[int, ...]
    text_of: Callable[[Any, str], str]
    classes: Callable[[], tuple[Any, Any]]


@dataclass(frozen=True)
class TextEncoder:
    """The language model with its tokenizer."""

    model: Any
    tokenizer: Any
    kind: Kind


@torch.no_grad()
def encode_prompts(encoder: TextEncoder, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Return prompt_embeds (B, 512, D) as diffusers' pipelines make them: three hidden states, one after the other.

    Padding is part of the prompt: the transformer attends to it. Longer prompts are cut.
    Source: Flux2KleinPipeline and Flux2Pipeline, encode_prompt.
    """
    tokens = encoder.tokenizer(
        _texts(encoder, prompts),
        padding="max_length",
        truncation=True,
        max_length=LENGTH,
        return_tensors="pt",
        **_no_more_specials(encoder),
    )
    device = encoder.model.device
    states = encoder.model(
        input_ids=tokens["input_ids"].to(device),
        attention_mask=tokens["attention_mask"].to(device),
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states
    taken = torch.stack([states[number] for number in encoder.kind.states], dim=2)
    return {"prompt_embeds": taken.flatten(2)}


def prompt_lengths(encoder: TextEncoder, prompts: Sequence[str]) -> list[int]:
    """Return how many tokens each prompt has in its template before any is cut."""
    tokens = encoder.tokenizer(
        _texts(encoder, prompts), verbose=False, **_no_more_specials(encoder)
    )
    return [len(row) for row in tokens.input_ids]


def load_text_encoders(
    files: ModelFiles, config: TrainConfig, device: torch.device
) -> TextEncoder:
    """Return the language model on the device, frozen, as far as its states are taken, and its tokenizer."""
    release()
    folder = files.parts["text_encoder"]
    form = config.text_encoder.weight_dtype
    dtype = common.compute_dtype("text_encoder", form, config.train_dtype, device)
    kind = KINDS[_stated_kind(folder)]
    model_class, tokenizer_class = kind.classes()
    model = load_text_encoder(
        model_class,
        "text_encoder",
        folder,
        _ARCHITECTURE,
        dtype,
        layers=max(kind.states) + 1,
    )
    common.place(model, model.layers, form, dtype, device, where=folder)
    tokenizer = load_tokenizer(tokenizer_class, files.parts["tokenizer"], model)
    encoder = TextEncoder(model, tokenizer, kind)
    _try_template(encoder, files.parts["tokenizer"])
    return encoder


def _stated_kind(folder: Path) -> str:
    """Return which language model a folder's config.json states, which was checked to be a known one."""
    kinds = ARCHITECTURES[_ARCHITECTURE]["kinds"]["text_encoder"]["is"]
    stated = read_config(config_file("text_encoder", folder)).get("model_type")
    return str(stated or kinds[0])


def _try_template(encoder: TextEncoder, folder: Path) -> None:
    """Refuse a tokenizer without a chat template that works, before the first caption."""
    try:
        _texts(encoder, ["a cat"])
    except Exception as error:  # of a template, which is a program
        problem = f"has no chat template that works ({first_line(error)})"
        cure = "Copy chat_template.jinja of the same model beside its tokenizer.json."
        raise FileError(str(folder), problem, cure) from error


def _texts(encoder: TextEncoder, prompts: Sequence[str]) -> list[str]:
    return [encoder.kind.text_of(encoder.tokenizer, prompt) for prompt in prompts]


def _no_more_specials(encoder: TextEncoder) -> dict[str, bool]:
    """Mistral's template writes the special tokens itself; Qwen's tokenizer has none to add."""
    return {"add_special_tokens": encoder.kind is not KINDS["mistral3"]}


def _qwen_text(tokenizer: Any, prompt: str) -> str:
    """A caption as klein was taught: as a user's turn, the answer begun, without thinking."""
    text: str = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    return text


def _mistral_text(tokenizer: Any, prompt: str) -> str:
    """A caption as dev was taught: as a user's turn behind a fixed message, without marks of images."""
    from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE

    turns = {"system": SYSTEM_MESSAGE, "user": prompt.replace("[IMG]", "")}
    text: str = tokenizer.apply_chat_template(
        [
            {"role": role, "content": [{"type": "text", "text": said}]}
            for role, said in turns.items()
        ],
        tokenize=False,
        add_generation_prompt=False,
    )
    return text


def _qwen_classes() -> tuple[Any, Any]:
    from transformers import Qwen2TokenizerFast, Qwen3Model

    return Qwen3Model, Qwen2TokenizerFast


def _mistral_classes() -> tuple[Any, Any]:
    from transformers import MistralModel, PreTrainedTokenizerFast

    return MistralModel, PreTrainedTokenizerFast


# By the model_type of the text encoder's config.json.
KINDS = {
    "qwen3": Kind((9, 18, 27), _qwen_text, _qwen_classes),
    "mistral3": Kind((10, 20, 30), _mistral_text, _mistral_classes),
}
