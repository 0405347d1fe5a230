"""What a block keeps for the backward: the vectors that its facts count, and what adapters and weights that train add.

A vector is as wide as the model, for every token. Proven against counted bytes of real blocks, on fake tensors.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, Literal

from blockrate.core.blocks import block_path, split_block
from blockrate.models.families import TransformerSpec
from blockrate.models.module_table import Tokens, modules

# bf16 by autocast, with weights in bf16 (or kept in fewer bits) or in fp32; all in bf16; all in fp32
Precision = Literal["mixed", "mixed on fp32", "bf16", "fp32"]
# what is multiplied as one, see engine/adapters/stacked.py
_TOGETHER = (
    {"attn.to_q", "attn.to_k", "attn.to_v"},
    {"attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"},
)
# vectors of such a product that are kept because others of it are, by the kind of block
_KEPT_WITH_OTHERS: dict[str, dict[Precision, int]] = {
    "double": {"mixed": 1, "mixed on fp32": 1, "bf16": 0, "fp32": 1},
    "single": {"mixed": 2, "mixed on fp32": 2, "bf16": 2, "fp32": 0},
}


@dataclass(frozen=True)
class Work:
    """One micro-batch: tokens of one sample, samples, how it trains. ``rank`` is ``None`` for a fine-tune.

    ``joins``: whether adapters are computed as ``engine/adapters/stacked.py`` does, and not as PEFT does.
    """

    image_tokens: int
    text_tokens: int
    batch: int = 1
    rank: int | None = None
    checkpointing: bool = True
    joins: bool = True

    def rows(self, tokens: Tokens) -> int:
        """How many rows the batch sends through a module that sees these tokens."""
        seen = {"image": self.image_tokens, "text": self.text_tokens, "one": 1}
        return self.batch * seen.get(tokens, self.image_tokens + self.text_tokens)


def block_elements(
    spec: TransformerSpec,
    block: str,
    trained: Collection[str],
    work: Work,
    precision: Precision,
) -> float:
    """Return how many elements a block in the chain of gradients keeps for the backward."""
    facts = spec.facts[split_block(block)[0]]["saved_vectors"]
    prefix = f"{block_path(block)}."
    vectors: float = facts["chain"][precision] * work.rows("joint")
    # those of all blocks; what a block has of its own is below
    vectors += _modulation_vectors(facts, "", trained, work, precision)
    if work.rank is not None:
        vectors += _adapter_vectors(facts, block, trained, work, precision)
    elif any(name.startswith(prefix) for name in trained):
        vectors += facts["weights"][precision] * work.rows("joint")
    pairs: int = facts.get("pairs", 0)
    pairs *= work.rows("joint") * (work.image_tokens + work.text_tokens)
    elements = vectors * spec.hidden + pairs
    if precision == "mixed on fp32" and work.rank is not None and work.joins:
        elements -= _adapted_weights(spec, prefix, trained)
    return elements


def _adapter_vectors(
    facts: dict[str, Any],
    block: str,
    trained: Collection[str],
    work: Work,
    precision: Precision,
) -> float:
    """Return the vectors that a block's adapters keep: their inputs, and what modulations with one have to."""
    prefix = f"{block_path(block)}."
    vectors = _modulation_vectors(facts, prefix, trained, work, precision)
    joined = work.joins and _are_joined(facts, prefix, trained)
    with_others = _KEPT_WITH_OTHERS[split_block(block)[0]][precision]
    for tokens, size, names in facts["inputs"]:
        copies = sum(prefix + name in trained for name in names)
        if joined and any(part <= set(names) for part in _TOGETHER):
            copies -= 2
            vectors += with_others * work.rows(tokens)
        vectors += size * _copies(copies, work, precision) * work.rows(tokens)
    return vectors


def _copies(adapted: int, work: Work, precision: Precision) -> int:
    """Return how often an input is kept in bf16 (in fp32 if all is) that this many Linears with an adapter take."""
    if precision == "bf16" and not work.joins:
        # PEFT's layers each take it in fp32
        return 2 * adapted
    # autocast gives each a copy of its own
    return adapted if precision.startswith("mixed") else min(adapted, 1)


def _are_joined(facts: dict[str, Any], prefix: str, trained: Collection[str]) -> bool:
    """Whether queries, keys and values are one product: where all of them, of the text too, have an adapter."""
    there = [
        name
        for _, _, names in facts["inputs"]
        for name in names
        if any(name in part for part in _TOGETHER)
    ]
    return bool(there) and all(prefix + name in trained for name in there)


def _adapted_weights(
    spec: TransformerSpec, prefix: str, trained: Collection[str]
) -> int:
    """Return the numbers of a block's weights that are not kept in bf16, as autocast would, because of adapters."""
    return sum(
        prod(module.shape)
        for module in modules(spec)
        if module.name in trained
        and module.name.startswith(prefix)
        and module.tokens != "one"
    )


def _modulation_vectors(
    facts: dict[str, Any],
    prefix: str,
    trained: Collection[str],
    work: Work,
    precision: Precision,
) -> float:
    """Return the vectors that are kept because modulations train: what each of their numbers is multiplied with."""
    vectors = 0.0
    for tokens, size, names in facts["modulations"]:
        if _any_trains(prefix + names[0], trained):
            # without autocast a third is kept already
            share = 2 / 3 if precision in ("bf16", "fp32") else 1.0
            vectors += share * size * work.rows(tokens)
    return vectors


def _any_trains(name: str, trained: Collection[str]) -> bool:
    """Whether a module trains, or one inside it."""
    return name in _with_what_holds_them(frozenset(trained))


@lru_cache(maxsize=8)
def _with_what_holds_them(trained: frozenset[str]) -> frozenset[str]:
    """Return these modules and all that they lie in, by their names."""
    found = set(trained)
    for name in trained:
        while name := name.rpartition(".")[0]:
            found.add(name)
    return frozenset(found)
