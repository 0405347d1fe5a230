"""Train Flux image models with a learning rate of its own for every transformer block."""

from importlib import import_module
from typing import TYPE_CHECKING

from blockrate.core.version import __version__ as __version__

if TYPE_CHECKING:
    from blockrate.core.blocks import BlockLayout, block_of
    from blockrate.core.errors import ConfigError
    from blockrate.core.profile import check_multipliers, complete
    from blockrate.core.selection import parse_selection
    from blockrate.core.shapes import layer_wise_decay, only
    from blockrate.engine.parameter_groups import (
        block_layout,
        freeze_blocks,
        parameter_groups,
    )

__all__ = [
    "BlockLayout",
    "ConfigError",
    "block_layout",
    "block_of",
    "check_multipliers",
    "complete",
    "freeze_blocks",
    "layer_wise_decay",
    "only",
    "parameter_groups",
    "parse_selection",
]

# Looked up on first use, so that `import blockrate` stays free of torch (three seconds) and pydantic.
_HOMES = {
    "BlockLayout": "blockrate.core.blocks",
    "ConfigError": "blockrate.core.errors",
    "block_layout": "blockrate.engine.parameter_groups",
    "block_of": "blockrate.core.blocks",
    "check_multipliers": "blockrate.core.profile",
    "complete": "blockrate.core.profile",
    "freeze_blocks": "blockrate.engine.parameter_groups",
    "layer_wise_decay": "blockrate.core.shapes",
    "only": "blockrate.core.shapes",
    "parameter_groups": "blockrate.engine.parameter_groups",
    "parse_selection": "blockrate.core.selection",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'blockrate' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
