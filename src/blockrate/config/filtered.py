"""Which modules the layer filter lets train, what it takes beyond its meaning, and what was meant by what it misses."""

import re
from collections.abc import Iterator, Mapping, Sequence

from blockrate.config.base_model import model_spec
from blockrate.config.filter_meant import (
    alone,
    blocks_text,
    plain_pattern,
    range_of,
    what_was_meant,
)
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import OTHER, block_of, model_order, shortened
from blockrate.core.errors import ConfigError
from blockrate.core.filter_text import (
    by_kind,
    names_blocks,
    strict_reading,
)
from blockrate.core.layer_filter import LayerFilter
from blockrate.models.families import TransformerSpec
from blockrate.models.module_table import Module, modules

Modules = dict[str, Module]  # by diffusers name, in model order
_MOST_TOLD = 5


def candidates(config: TrainConfig, spec: TransformerSpec) -> list[Module]:
    """Return the modules that can train: a LoRA goes on linear ones."""
    is_lora = config.training_method == "LORA"
    return [module for module in modules(spec) if module.linear or not is_lora]


def matching_layers(config: TrainConfig) -> tuple[tuple[str, ...], int]:
    """Return the names of the modules that the layer filter lets train, and how many there are to choose from.

    Raises ``FileError`` for model files.
    """
    chosen = config.layer_filter_in_effect()
    choice = candidates(config, model_spec(config))
    names = [module.name for module in choice if chosen.matches(module.name)]
    return tuple(names), len(choice)


def allowed_modules(config: TrainConfig, spec: TransformerSpec) -> Modules:
    """Return the modules that the layer filter lets train, by name; raises ConfigError for none."""
    chosen = config.layer_filter_in_effect()
    choice = candidates(config, spec)
    allowed = {module.name: module for module in choice if chosen.matches(module.name)}
    if not allowed:
        names = [module.name for module in choice]
        problem = f"{_quoted(', '.join(chosen.patterns))} matches none of the {len(names)} modules"
        cures = [
            what_was_meant(pattern, spec, names)
            for pattern in chosen.patterns[:_MOST_TOLD]
        ]
        raise ConfigError("layer_filter", problem, " ".join(dict.fromkeys(cures)))
    return allowed


def blocks_of(allowed: Modules) -> tuple[str, ...]:
    """Return the blocks that modules lie in, in model order, and ``other`` last."""
    blocks = {module.block or OTHER for module in allowed.values()}
    return tuple(sorted(blocks, key=model_order))


def filter_warnings(config: TrainConfig, spec: TransformerSpec) -> Iterator[str]:
    """Yield what a filter that a user wrote takes beyond its meaning, and the parts of it that find nothing."""
    chosen = config.layer_filter_in_effect()
    names = [module.name for module in candidates(config, spec)]
    if not config.layer_filter.strip():
        yield from _idle_parts(config.layer_filter_preset, chosen, names)
        return
    taken = {
        pattern: list(filter(LayerFilter((pattern,), chosen.regex).matches, names))
        for pattern in chosen.patterns
    }
    yield from _excesses(taken, names, spec, regex=chosen.regex)
    missing = [
        pattern
        for pattern, found in taken.items()
        if not found and not any(chosen.finds(pattern, name) for name in names)
    ]
    for pattern in missing[:_MOST_TOLD]:
        cure = what_was_meant(pattern, spec, names)
        yield f"layer_filter: {_quoted(pattern)} matches none of the {len(names)} modules. {cure}"
    if len(missing) > _MOST_TOLD:
        rest = len(missing) - _MOST_TOLD
        yield f"layer_filter: {rest} more parts match none of the {len(names)} modules."


def _idle_parts(
    preset: str, chosen: LayerFilter, names: Sequence[str]
) -> Iterator[str]:
    """Yield which parts of a ready-made filter find nothing: models call their layers differently."""
    idle = [
        pattern
        for pattern in chosen.patterns
        if not any(chosen.finds(pattern, name) for name in names)
    ]
    if idle:
        yield (
            f"layer_filter_preset {preset}: this model has no layer that is called {' or '.join(idle)}, "
            "so less trains than the name says. Use blocks, or a layer_filter of your own."
        )


def _excesses(
    taken: Mapping[str, Sequence[str]],
    names: Sequence[str],
    spec: TransformerSpec,
    *,
    regex: bool,
) -> Iterator[str]:
    """Yield what the first patterns take beyond their meaning. ``taken``: the modules that each lets through."""
    told = 0
    for pattern, found in taken.items():
        if not found or not names_blocks(pattern):
            continue
        if told == _MOST_TOLD:
            yield "layer_filter: the parts after these may let through more than they say, too."
            return
        for text in _excess(pattern, found, names, spec, regex=regex):
            told += 1
            yield text


def _excess(
    pattern: str,
    found: Sequence[str],
    names: Sequence[str],
    spec: TransformerSpec,
    *,
    regex: bool,
) -> Iterator[str]:
    """Yield what a pattern for certain blocks takes: those of both kinds, or 10 to 19 for 1."""
    strict = strict_reading(pattern, regex=regex, names=names)
    kinds = by_kind(strict)
    all_blocks = blocks_text(found, spec)
    text = f"layer_filter: {_quoted(pattern)} lets through {all_blocks}."
    named = block_of(plain_pattern(pattern))
    if named and named not in map(block_of, found):
        yield f"{text} {range_of(spec)}"
    elif all_blocks != blocks_text(strict, spec) or len(kinds) > 1:
        like = pattern if regex else re.escape(pattern)
        yield " ".join([text, *alone(kinds, names, spec, like)])


def _quoted(text: str) -> str:
    """Return a text between quotes, with backslashes as the user writes them."""
    return repr(shortened(text)).replace("\\\\", "\\")
