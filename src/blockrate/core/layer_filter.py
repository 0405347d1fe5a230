"""Which modules train: comma-separated patterns against module names, with OneTrainer's presets."""

import re
from dataclasses import dataclass

from blockrate.core.blocks import shortened
from blockrate.core.errors import ConfigError
from blockrate.core.regex_cost import is_endless

PRESETS: dict[str, tuple[str, ...]] = {
    "blocks": ("transformer_block",),
    "attn-mlp": ("attn", "ff.net", "proj_mlp"),
    "attn-only": ("attn",),
    "full": (),
}
# What models call a layer that is called otherwise in the first of them: a ready-made
# filter means both.
_ALSO_CALLED = {"ff.net": ("ff.linear",), "proj_mlp": ("to_qkv_mlp_proj",)}
_MOST_PATTERNS = 1_000
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class LayerFilter:
    """Patterns of which one must be found in a module's name; no pattern lets everything through.

    A pattern is a plain substring, or a regular expression that is searched (not anchored) when ``regex`` is true.
    Raises ``ConfigError`` for a pattern that is not a valid regular expression.
    """

    patterns: tuple[str, ...]
    regex: bool = False

    def __post_init__(self) -> None:
        if len(self.patterns) > _MOST_PATTERNS:
            problem = f"has {len(self.patterns):,} parts between commas"
            cure = f"The most is {_MOST_PATTERNS:,}."
            raise ConfigError("layer_filter", problem, cure)
        if not self.regex:
            return
        for pattern in self.patterns:
            try:
                re.compile(pattern)
                endless = is_endless(pattern)
            except RecursionError as error:
                problem = f"{shortened(pattern)!r} is nested too deeply"
                raise ConfigError(
                    "layer_filter", problem, "Write it simpler."
                ) from error
            except (re.error, OverflowError) as error:
                problem = f"{pattern!r} is not a valid regular expression: {error}"
                cure = "Correct it, or switch layer_filter_regex off."
                raise ConfigError("layer_filter", problem, cure) from error
            if endless:
                problem = f"{shortened(pattern)!r} repeats a repetition, or too much, and may take for ever"
                cure = r"Write it like ^transformer_blocks\.[0-9]+\.attn."
                raise ConfigError("layer_filter", problem, cure)

    def matches(self, module_name: str) -> bool:
        """Tell whether a module, named as diffusers names it, is let through."""
        if not self.patterns:
            return True
        return any(self.finds(pattern, module_name) for pattern in self.patterns)

    def finds(self, pattern: str, module_name: str) -> bool:
        """Tell whether one of the patterns is found in a module's name; of a preset also by its other names."""
        if self.regex:
            return bool(re.search(pattern, module_name))
        names = (pattern, *(_ALSO_CALLED.get(pattern, ()) if self._is_preset else ()))
        return any(name in module_name for name in names)

    @property
    def _is_preset(self) -> bool:
        """Whether the patterns are those of a preset, as which programs also write it out."""
        return not self.regex and self.patterns in PRESETS.values()


def split_patterns(text: str) -> tuple[str, ...]:
    r"""Return the patterns of a filter text: split at commas outside brackets, blanks trimmed, empty ones dropped.

    So ``blocks\.(1,2)``, ``[,;]`` and ``x{1,2}`` stay whole. A bracket behind a backslash is plain text.
    """
    patterns = []
    current = ""
    closing = ""
    escaped = False
    for sign in text:
        in_class = closing.endswith("]")  # inside [...] only its end has a meaning
        if sign == "," and not closing and not escaped:
            patterns.append(current)
            current = ""
            continue
        if not escaped:
            if closing and sign == closing[-1]:
                closing = closing[:-1]
            elif sign in _CLOSING and not in_class:
                closing += _CLOSING[sign]
        escaped = sign == "\\" and not escaped
        current += sign
    return tuple(pattern.strip() for pattern in [*patterns, current] if pattern.strip())
