"""What multiplies the learning rate of each block: what a user writes, checked, and the value made of it."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType

from blockrate.core.block_meant import block_meant
from blockrate.core.blocks import KINDS, OTHER, BlockLayout, shortened
from blockrate.core.errors import ConfigError

KEY = "block_learning_rate_multiplier"
# the multiplier of a block that is not named
FULL = 1.0
Multipliers = Mapping[str, float]


@dataclass(frozen=True)
class Profile:
    """What multiplies the learning rate of every block, and of ``other``, at each step.

    Made by ``Profile.of`` or ``Profile.of_phases``. Readers ask this value, and none decides
    for itself what 0.0 means: all but ``at`` and ``changes`` follows from these two.
    """

    # by the step from which they hold, ascending; the first is 0
    _phases: tuple[tuple[int, Multipliers], ...]

    @classmethod
    def of(
        cls, multipliers: Multipliers, layout: BlockLayout, model: str = "this model"
    ) -> "Profile":
        """Return the profile that a user wrote; raises as ``check_multipliers`` does.

        ``model``: how an error calls it.
        """
        return cls.of_phases([(0, multipliers)], layout, model)

    @classmethod
    def of_phases(
        cls,
        phases: Sequence[tuple[int, Multipliers]],
        layout: BlockLayout,
        model: str = "this model",
    ) -> "Profile":
        """Return the profile of rates that each hold from a step on, the first from 0; raises as ``of`` does."""
        whole = []
        for start, multipliers in phases:
            check_multipliers(multipliers, layout, model)
            whole.append((start, MappingProxyType(complete(multipliers, layout))))
        return cls(tuple(whole))

    def at(self, step: int) -> Multipliers:
        """Return the multiplier of every block in model order, then of ``other``.

        ``step``: 0 is the first.
        """
        begun = [rates for start, rates in self._phases if start <= step]
        return begun[-1] if begun else self._phases[0][1]

    def changes(self) -> tuple[int, ...]:
        """Return the steps whose multipliers differ from those of the step before."""
        starts = dict.fromkeys(start for start, _ in self._phases if start > 0)
        return tuple(start for start in starts if self.at(start) != self.at(start - 1))

    def trained_before(self, step: int) -> frozenset[str]:
        """Return the blocks, and ``other``, that have trained in one of the first ``step`` steps."""
        trained: set[str] = set()
        for start in (0, *self.changes()):
            if start < step:
                trained.update(set(self.at(start)).difference(self.frozen_at(start)))
        return frozenset(trained)

    def frozen_at(self, step: int) -> tuple[str, ...]:
        """Return the blocks, and ``other``, that stand still in a step, in model order."""
        return frozen_blocks(self.at(step))

    @property
    def ever_trained(self) -> frozenset[str]:
        """The blocks, and ``other``, that train in some step."""
        trained: set[str] = set()
        for step in (0, *self.changes()):
            trained.update(set(self.at(step)).difference(self.frozen_at(step)))
        return frozenset(trained)

    @property
    def never_trained(self) -> tuple[str, ...]:
        """The blocks, and ``other``, that are frozen for real, in model order."""
        trained = self.ever_trained
        return tuple(name for name in self.at(0) if name not in trained)

    @property
    def is_used(self) -> bool:
        """Whether any multiplier differs from 1.0 in any step."""
        return any(sparse(self.at(step)) for step in (0, *self.changes()))


def check_multipliers(
    multipliers: Mapping[str, object], layout: BlockLayout, model: str = "this model"
) -> None:
    """Raise one ``ConfigError`` that names every wrong block and value, with the valid range and a near name.

    Keys are the block names of ``layout`` and ``other``; values are numbers from 0.0 (frozen) to 1.0.
    """
    if not isinstance(multipliers, Mapping):
        problem = f"{multipliers!r} is not an object of block names and numbers"
        raise ConfigError(KEY, problem, 'Write it like {"double_block_0": 0.5}.')
    allowed = (*layout.names, OTHER)
    problems = []
    for name, value in multipliers.items():
        if name not in allowed:
            problems.append(_name_problem(name, layout, model))
        elif not is_multiplier(value):
            problems.append(f"{name}: {value!r} is not a number from 0.0 to 1.0")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        ranges = ", ".join(_range(kind, layout) for kind in KINDS)
        cure = f"Use {ranges} or other, each with a number from 0.0 (frozen) to 1.0 without quotes."
        raise ConfigError(KEY, "; ".join(problems[:5]) + more, cure)


def is_multiplier(value: object, most: float = FULL) -> bool:
    """Tell whether a value is a number from 0.0 to ``most``: no text, no bool, no NaN."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    # NaN is neither below 0.0 nor up to anything
    return not value < 0.0 and bool(value <= most)


def complete(multipliers: Multipliers, layout: BlockLayout) -> dict[str, float]:
    """Return a multiplier for every block in model order, then ``other``; a missing one is 1.0."""
    names = (*layout.names, OTHER)
    return {name: float(multipliers.get(name, FULL)) for name in names}


def sparse(multipliers: Multipliers) -> dict[str, float]:
    """Return only the multipliers that differ from 1.0; ``complete`` undoes it."""
    return {name: value for name, value in multipliers.items() if value != FULL}


def frozen_blocks(multipliers: Multipliers) -> tuple[str, ...]:
    """Return the names at 0.0, in the order given."""
    return tuple(name for name, value in multipliers.items() if value == 0.0)


def scaled_blocks(multipliers: Multipliers) -> tuple[str, ...]:
    """Return the names that train at a rate of their own: neither 0.0 nor 1.0."""
    frozen = frozen_blocks(multipliers)
    return tuple(name for name in sparse(multipliers) if name not in frozen)


def _name_problem(key: object, layout: BlockLayout, model: str) -> str:
    name = str(key)
    allowed = (*layout.names, OTHER)
    meant = block_meant(name)
    exact = re.fullmatch(r"(double|single)_block_[0-9]+", meant)
    told = shortened(name)
    if exact and meant not in allowed:
        return f"{told}: {model} has {_range(exact[1], layout)}"
    near = [meant]
    if meant not in allowed:
        # what is left may be a slip of the fingers
        near = difflib.get_close_matches(name.lower(), allowed, n=1, cutoff=0.8)
    question = f" (did you mean {near[0]}?)" if near else ""
    return f"{told}: no such block{question}"


def _range(kind: str, layout: BlockLayout) -> str:
    count = layout.count(kind)
    if not count:
        return f"no {kind} blocks"
    return f"{kind}_block_0 to {kind}_block_{count - 1}"
