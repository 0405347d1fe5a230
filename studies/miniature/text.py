"""Small real text encoders, a T5 and a CLIP, with tokenizers that hold every word of the pictures' names.

Their weights are drawn, not trained: a word needs a vector of its own, and the flow model learns what it means.
Words that are not in the vocabulary are spelt letter by letter.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

WIDTH = 96  # of what both encoders give


def text_parts(captions: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """Return text encoders and tokenizers under the names that FluxPipeline takes. The same for a seed."""
    words = Counter(
        word for text in captions for word in re.findall(r"[\w']+", text.lower())
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {**_clip(words), **_t5(words)}
    _spread(parts["text_encoder"], parts["tokenizer"], captions)
    for name in ("text_encoder", "text_encoder_2"):
        parts[name] = (
            parts[name].bfloat16().float()
        )  # rounded now, so that the shipped ones give the same
    return parts


def _clip(words: Counter[str]) -> dict[str, Any]:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer(*_byte_pairs(words), model_max_length=77)
    sizes = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
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
    return {"text_encoder": CLIPTextModel(config).eval(), "tokenizer": tokenizer}


def _t5(words: Counter[str]) -> dict[str, Any]:
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    tokenizer = T5TokenizerFast(_unigrams(words), extra_ids=0, model_max_length=512)
    sizes = {
        "d_model": WIDTH,
        "d_kv": 24,
        "d_ff": 2 * WIDTH,
        "num_layers": 2,
        "num_heads": 4,
    }
    config = T5Config(
        vocab_size=len(tokenizer), **sizes, feed_forward_proj="gated-gelu"
    )
    encoder = T5EncoderModel(config).eval()
    with (
        torch.no_grad()
    ):  # T5 tells capital letters apart, CLIP does not; the names know small ones only
        rows = encoder.get_input_embeddings().weight
        for word in words:
            small, capital = tokenizer.convert_tokens_to_ids(
                [f"\u2581{word}", f"\u2581{word.capitalize()}"]
            )
            rows[capital] = rows[small]
    return {"text_encoder_2": encoder, "tokenizer_2": tokenizer}


@torch.no_grad()
def _spread(clip: Any, tokenizer: Any, captions: Sequence[str]) -> None:
    """Let every number of the pooled embedding have mean 0 and deviation 1 over the captions.

    As drawn, what all captions share (their end token) outweighs what tells them apart.
    """
    tokens = tokenizer(
        list(captions),
        padding="max_length",
        max_length=77,
        truncation=True,
        return_tensors="pt",
    )
    pooled = clip(tokens.input_ids).pooler_output
    mean = pooled.mean(0)
    deviation = pooled.std(0).clamp_min(1e-3)
    last = next(
        module
        for name, module in clip.named_modules()
        if name.endswith("final_layer_norm")
    )
    last.weight.div_(deviation)
    last.bias.sub_(mean).div_(deviation)


def _byte_pairs(words: Counter[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's kind of vocabulary: every byte, inside a word and at its end, and the merges that spell our words.

    A merge is made of what earlier merges left of the word, so that later words cannot break earlier ones.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    merges: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            place = _next_merge(pieces, merges)
            pair = (pieces[place], pieces[place + 1])
            merges.setdefault(pair, len(merges))
            pieces = _merged(pieces, pair)
    letters = sorted(ByteLevel.alphabet())
    tokens = [
        "<|startoftext|>",
        "<|endoftext|>",
        *letters,
        *(f"{letter}</w>" for letter in letters),
    ]
    vocabulary = dict.fromkeys([*tokens, *("".join(pair) for pair in merges)])
    return {token: row for row, token in enumerate(vocabulary)}, list(merges)


def _next_merge(pieces: Sequence[str], merges: dict[tuple[str, str], int]) -> int:
    """Return the place of the oldest known merge, as the tokenizer will choose it, else the first place."""
    ranks = [merges.get(pair, math.inf) for pair in pairwise(pieces)]
    return ranks.index(min(ranks))


def _merged(pieces: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """Return the pieces with every occurrence of the pair joined."""
    joined: list[str] = []
    place = 0
    while place < len(pieces):
        is_pair = tuple(pieces[place : place + 2]) == pair
        joined.append("".join(pair) if is_pair else pieces[place])
        place += 2 if is_pair else 1
    return joined


def _unigrams(words: Counter[str]) -> list[tuple[str, float]]:
    """T5's kind of vocabulary: printable ASCII, and our words, also with a capital, and how likely each is."""
    total = words.total()
    spelt = {
        form: count
        for word, count in words.items()
        for form in (word.capitalize(), word)
    }
    whole = [
        (f"\u2581{word}", round(math.log(count / total), 4))
        for word, count in spelt.items()
    ]
    letters = [(letter, -12.0) for letter in ["\u2581", *map(chr, range(33, 127))]]
    return [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters, *whole]
