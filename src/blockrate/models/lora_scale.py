"""How strong a LoRA file says that its modules are, where they have no ``.alpha`` of their own."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blockrate.core.blocks import bare_name, shortened
from blockrate.core.errors import FileError

# PEFT's LoraConfig, which diffusers writes into the header as JSON
_CONFIG = "lora_adapter_metadata"
_OF_TRANSFORMER = "transformer."
_OTHER_PARTS = ("text_encoder.", "text_encoder_2.", "unet.")
# the same in entries of their own, the first that is there counts; ss_network_alpha does not: no reader takes it
_PLAIN = ("transformer.lora_alpha", "lora_alpha", "alpha")
_NOTHING = ("", "none", "null")
_LONGEST_PATTERN = 200
# Steps of a regular expression over all names, at worst: some seconds.
_MOST_STEPS = 10**9


class HeaderScale:
    """The scale of each module by the header of a file, 1 where that says nothing.

    ``rank``: PEFT's ``r``, for methods whose factors do not show it; ``None`` if it is not said.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str]) -> None:
        self._path = path
        config = self._config(metadata)
        self.rank = self._rank(config.get("r"))
        alpha = config.get("lora_alpha", config.get("alpha"))
        self._alpha = self._number("lora_alpha", alpha)
        rslora = str(config.get("use_rslora") or metadata.get("use_rslora"))
        self._is_stabilized = rslora.lower() == "true"
        for name in _PLAIN:
            if self._alpha is None:
                self._alpha = self._number(name, metadata.get(name))
        self._patterns = _Patterns(path, self._alphas(config.get("alpha_pattern")))

    def of(self, module: str, rank: int) -> float:
        """Return alpha / rank of a module, called as in the file or as diffusers does."""
        alpha = self._patterns.value(bare_name(module))
        if alpha is None:
            alpha = self._alpha
        if alpha is None:
            alpha = float(rank)
        # rank-stabilized LoRA (Kalajdzievski 2023)
        return alpha / (math.sqrt(rank) if self._is_stabilized else rank)

    def _config(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Return the transformer's part of the JSON, whose names may have its prefix."""
        try:
            found = json.loads(metadata.get(_CONFIG) or "{}")
            config = {} if found is None else found
            of_transformer = {}
            for key, value in config.items():
                if key.startswith(_OF_TRANSFORMER):
                    of_transformer[key.removeprefix(_OF_TRANSFORMER)] = value
        except (ValueError, AttributeError, RecursionError) as error:
            problem = f"its {_CONFIG} is not JSON of an adapter"
            raise FileError(
                str(self._path), problem, "Export the LoRA again."
            ) from error
        if of_transformer or any(key.startswith(_OTHER_PARTS) for key in config):
            return of_transformer
        return dict(config)

    def _number(self, name: str, value: Any) -> float | None:
        if value is None or str(value).lower() in _NOTHING:
            return None
        number = math.nan
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            try:
                number = float(value)
            except (ValueError, OverflowError):
                number = math.nan
        if math.isfinite(number):
            return number
        problem = (
            f"its header says {name} {shortened(repr(value))}, which is not a number"
        )
        raise FileError(str(self._path), problem, "Export the LoRA again.")

    def _rank(self, value: Any) -> int | None:
        number = self._number("r", value)
        return int(number) if number and number >= 1 else None

    def _alphas(self, found: Any) -> dict[str, float]:
        alphas = {}
        rows = found or {}
        if not isinstance(rows, dict):
            rows = {"alpha_pattern": found}
        for pattern, value in rows.items():
            number = self._number(pattern, value)
            if number is not None:
                alphas[pattern] = number
        return alphas


class _Patterns:
    """PEFT's ``alpha_pattern``: a regular expression fits the end of a module's name, from a dot on; the first counts.

    Most are the names themselves, which are looked up. The rest comes from a file: it may not cost time without end.
    """

    def __init__(self, path: Path, values: Mapping[str, float]) -> None:
        self._path = path
        self._values = list(values.values())
        self._steps = 0
        # by name, and by regular expression: where in the list
        self._names: dict[str, int] = {}
        self._expressions: list[tuple[int, re.Pattern[str], int]] = []
        for place, pattern in enumerate(values):
            name = pattern.replace(r"\.", ".")
            if re.fullmatch(r"\^?[\w.-]+\$?", name):
                self._names.setdefault(name.rstrip("$"), place)
            else:
                self._expressions.append((place, *self._compiled(pattern)))

    def value(self, module: str) -> float | None:
        """Return what fits a module."""
        places = []
        ends = [f"^{module}", module]
        for dot in re.finditer(r"\.", module):
            ends.append(module[dot.end() :])
        for end in ends:
            if end in self._names:
                places.append(self._names[end])
        for place, expression, power in self._expressions:
            self._steps += len(ends) * len(module) ** power
            if self._steps > _MOST_STEPS:
                raise self._too_much(expression.pattern)
            if expression.match(module):
                places.append(place)
        return self._values[min(places)] if places else None

    def _compiled(self, pattern: str) -> tuple[re.Pattern[str], int]:
        """Return an expression, and to which power of a name's length its steps grow at worst."""
        repeats = len(re.findall(r"[*+{?]", pattern))
        # what repeats within what repeats grows without bounds
        if len(pattern) > _LONGEST_PATTERN or re.search(r"\)[*+{]|\\[1-9]", pattern):
            raise self._too_much(pattern)
        try:
            return re.compile(rf"(.*\.)?({pattern})$"), repeats + 1
        except (re.error, OverflowError) as error:
            raise self._too_much(pattern) from error

    def _too_much(self, pattern: str) -> FileError:
        problem = f"its alpha_pattern {shortened(repr(pattern))} cannot be applied"
        return FileError(str(self._path), problem, "Export the LoRA again.")
