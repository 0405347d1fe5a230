"""What a user means by a layer filter's part that finds no module: a name of another tool, a slip, a preset."""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from blockrate.core.block_meant import blocks_meant
from blockrate.core.blocks import KINDS, OTHER, block_of, block_path
from blockrate.core.filter_text import filter_for
from blockrate.core.layer_filter import PRESETS
from blockrate.core.regex_cost import is_endless
from blockrate.core.selection import selection_text
from blockrate.models.families import TransformerSpec
from blockrate.models.lora_keys import is_text_encoder, split_key
from blockrate.models.lora_names import file_names
from blockrate.models.module_table import modules

# a longer part is not guessed at
_LONGEST = 200


def what_was_meant(pattern: str, spec: TransformerSpec, names: Sequence[str]) -> str:
    """Return a sentence that offers what was meant by a pattern that finds nothing."""
    like = "Module names look like transformer_blocks.0.attn.to_q."
    if len(pattern) > _LONGEST:
        return like
    if pattern in PRESETS:
        return f"Did you mean layer_filter_preset {pattern}?"
    if is_text_encoder(pattern):
        return "It names a text encoder, and only the transformer trains."
    if _as_expression(pattern, names):
        return "Is it a regular expression? Then set layer_filter_regex to true."
    spelled = file_names(spec.architecture, spec.layout)
    wanted = _modules_meant(plain_pattern(pattern), spec, spelled)
    wanted = wanted or _spelled_like(pattern, spelled)
    wanted.intersection_update(names)
    offer = filter_for(wanted, names) if wanted else None
    if offer:
        return f"Did you mean {offer.words()}?"
    block = block_of(plain_pattern(pattern)) or ""
    if block and block not in spec.layout.names:
        return range_of(spec)
    if re.fullmatch(r"[0-9]{1,4}-[0-9]{1,4}", pattern):
        return " ".join(_of_either_kind(pattern, spec, names)) or range_of(spec)
    near = difflib.get_close_matches(pattern, _parts(names), n=1, cutoff=0.85)
    words = {word for name in names for word in name.split(".")}
    near = near or difflib.get_close_matches(pattern, sorted(words), n=1)
    return f"Did you mean {near[0]}?" if near else like


def _of_either_kind(
    indices: str, spec: TransformerSpec, names: Sequence[str]
) -> Iterator[str]:
    """Yield what lets through the blocks of each kind that indices may mean."""
    for kind in KINDS:
        blocks = blocks_meant(f"{kind} {indices}", spec.layout)
        if blocks:
            yield from alone([[n for n in names if block_of(n) in blocks]], names, spec)


def _as_expression(pattern: str, names: Sequence[str]) -> bool:
    """Whether a text finds something only as a regular expression."""
    if re.escape(pattern).replace(r"\.", ".").replace(r"\-", "-") == pattern:
        return False
    expression = _compiled(pattern)
    return expression is not None and any(map(expression.search, names))


def plain_pattern(pattern: str) -> str:
    """Return the name that a pattern holds, without what marks an expression or a tensor of a LoRA."""
    name = re.sub(r"\\(.)", r"\1", pattern).strip("^$*. ")
    split = split_key(name)
    return split[0] if split else name.removesuffix(".weight").removesuffix(".bias")


def _modules_meant(
    name: str, spec: TransformerSpec, spelled: Mapping[str, Collection[str]]
) -> set[str]:
    """Return the modules that a name means in any tool's spelling, whole or in part."""
    blocks = blocks_meant(name, spec.layout)
    own = re.fullmatch(r"(?:double|single)_block_[0-9]+\.(\w[\w.]*)", name)
    if own and blocks:
        name = f"{block_path(blocks[0])}.{own[1]}"
    if name in spelled:
        return set(spelled[name])
    word = re.escape(name.strip("._"))
    # an underscore parts words in kohya's names, and not in those of diffusers
    for expression in (
        rf"(?<![A-Za-z0-9_]){word}(?![A-Za-z0-9])",
        rf"(?<![A-Za-z0-9]){word}(?![A-Za-z0-9])",
    ):
        found = _spelled_like(expression, spelled)
        if found:
            # of transformer_blocks_7, which is inside single_transformer_blocks_7
            meant = {member for member in found if block_of(member) in blocks}
            return meant or found
    return {module.name for module in modules(spec) if module.block in blocks}


def _spelled_like(expression: str, spelled: Mapping[str, Collection[str]]) -> set[str]:
    pattern = _compiled(expression)
    if not pattern:
        return set()
    return {
        member
        for spelling, members in spelled.items()
        if pattern.search(spelling)
        for member in members
    }


def _compiled(expression: str) -> re.Pattern[str] | None:
    """Return an expression that may be searched for, ``None`` for what is none or may take for ever."""
    try:
        return None if is_endless(expression) else re.compile(expression, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError):
        return None


def _parts(names: Sequence[str]) -> list[str]:
    """Return the words that module names consist of, and what stands together of them."""
    parts: dict[str, None] = {}
    for name in names:
        words = name.split(".")
        for start in range(len(words)):
            for end in range(start + 1, len(words) + 1):
                if not words[start].isdigit():
                    parts[".".join(words[start:end])] = None
    return list(parts)


def alone(
    choices: Iterable[Sequence[str]],
    names: Sequence[str],
    spec: TransformerSpec,
    like: str = "",
) -> Iterator[str]:
    """Yield for each choice of modules what lets through these alone."""
    for wanted in choices:
        offer = filter_for(wanted, names, like)
        if offer:
            yield f"For {blocks_text(wanted, spec)} alone write {offer.words()}."


def range_of(spec: TransformerSpec) -> str:
    """Return a sentence that tells which blocks there are."""
    kinds = [f"{kind} 0-{spec.layout.count(kind) - 1}" for kind in KINDS]
    return f"This model has the blocks {' and '.join(kinds)}."


def blocks_text(names: Sequence[str], spec: TransformerSpec) -> str:
    """Return the blocks that some modules lie in, as a selection."""
    return selection_text({block_of(name) or OTHER for name in names}, spec.layout)
