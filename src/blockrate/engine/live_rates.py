"""New block rates between two steps: the run goes on as one that was stopped there, edited and started again.

That holds to the last bit, because the same is done: groups and optimizer are made anew, and each parameter gets its
own state by name, as from a checkpoint (engine/checkpoint.py). A block that is set to 0.0 keeps what it learned and
loses its moments; one that is raised again begins with fresh ones.
"""

import gc
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace

from blockrate.config.base_model import model_spec
from blockrate.config.new_rates import with_rates
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.streamed import trained_modules
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import OTHER, plain_name
from blockrate.core.errors import BlockrateError, ConfigError, WriteError
from blockrate.core.profile import KEY
from blockrate.engine import ranks
from blockrate.engine.adapters import ADAPTERS
from blockrate.engine.checkpoint import (
    moments_of,
    move_to_average,
    optimizer_facts,
    restore_optimizer,
)
from blockrate.engine.parameter_groups import Row, block_layout, parameters_by_block
from blockrate.engine.state import (
    TrainingState,
    groups_of,
    make_groups,
    spread_over_ranks,
)
from blockrate.engine.world import world
from blockrate.run.events import Declined, Rates
from blockrate.run.folder import RunSession
from blockrate.run.rate_commands import AskedRates, asked_rates, drop_asked, keep_rates

_NOT_READ = "what asks for them cannot be read; it holds them as a config does"
_NEWER = "newer rates came before the step was over"
_START_AGAIN = (
    "A block that is not named has 1.0: give it 0.0, "
    "or stop the run and start it again with these rates."
)


class LiveRates:
    """Takes the rates that a run is asked for while it trains; all ranks at the same step."""

    def __init__(
        self, session: RunSession, state: TrainingState, total_steps: int
    ) -> None:
        self._run = session.folder
        self._log = session.log
        self._state = state
        self._total_steps = total_steps
        # a folder that cannot be written keeps what was asked
        self._answered: set[str] = set()

    def take(self, config: TrainConfig, step: int) -> TrainConfig | None:
        """Take the newest rates that can be taken after ``step`` steps, and answer all.

        Returns the config with them, None if none were taken.
        """
        mine = asked_rates(self._run) if world().is_first else []
        asked: list[AskedRates] = ranks.gathered(mine)[0]
        taken = None
        for one in reversed(asked):
            if one.command in self._answered:
                continue
            if taken is not None:
                self._decline(one, _NEWER, step)
                continue
            try:
                taken = self._taken(one, config, step)
            except BlockrateError as error:
                self._decline(one, str(error), step)
        self._answered.update(one.command for one in asked)
        if world().is_first:
            drop_asked(self._run, self._answered)
        return taken

    def _decline(self, asked: AskedRates, why: str, step: int) -> None:
        self._log.write(Declined(asked.command, why), step=step)

    def _taken(self, asked: AskedRates, config: TrainConfig, step: int) -> TrainConfig:
        """Take rates. Raises BlockrateError, with nothing changed."""
        if asked.rates is None:
            raise ConfigError(KEY, _NOT_READ)
        new = with_rates(config, asked.rates)
        before = dict(self._state.profile.at(step))
        change = StateChange(self._state, new, self._total_steps)
        try:
            self._keep(new, step)
        except BlockrateError:
            change.undo()
            raise
        change.apply()
        after = dict(self._state.profile.at(step))
        groups = groups_of(self._state)
        self._log.write(Rates(before, after, asked.command, groups), step=step)
        return new

    def _keep(self, config: TrainConfig, step: int) -> None:
        """Write the config, by the first rank. Raises WriteError on all."""
        problem: tuple[str, str, str] | None = None
        if world().is_first:
            try:
                keep_rates(self._run, config, step=step)
            except WriteError as error:
                problem = (error.where, error.problem, error.cure)
        told = ranks.gathered(problem)[0]
        if told:
            raise WriteError(*told)


class StateChange:
    """A state's way to the block rates of another config: all that can fail is done, and ``apply`` or ``undo`` follows.

    Raises ConfigError, and then the state is as it was.
    """

    def __init__(
        self, state: TrainingState, config: TrainConfig, total_steps: int
    ) -> None:
        self._state = state
        self._moments = moments_of(state)
        self._facts = optimizer_facts(state, OPTIMIZERS[config.optimizer.optimizer])
        rows = {row.name: row.block for row in _trained_by(state, config)}
        self._before = list(state.trained)
        self._let_train(rows)
        try:
            self._new = _with_groups(state, config, rows, total_steps)
            self._fresh = restore_optimizer(
                self._new, self._moments, self._facts, copies=False
            )
        except Exception:
            self.undo()
            raise

    def undo(self) -> None:
        """Leave the state as it was."""
        self._let_train(self._before)

    def apply(self) -> None:
        """Let the state be the other."""
        state = self._state
        for each in fields(state):
            setattr(state, each.name, getattr(self._new, each.name))
        move_to_average(state, self._moments, self._facts, self._fresh)
        self._new.spread = None
        spread_anew(state)

    def _let_train(self, names: Iterable[str]) -> None:
        trained = set(names)
        for name, parameter in self._state.learned().items():
            parameter.requires_grad_(name in trained)


def spread_anew(state: TrainingState) -> None:
    """Let several ranks add up the gradients of what trains now."""
    if state.spread is not None:
        state.spread = None
        # it knows which weights train; what is left of it would go on adding up their gradients
        gc.collect()
        state.spread = spread_over_ranks(state.transformer)


def _with_groups(
    state: TrainingState,
    config: TrainConfig,
    blocks: Mapping[str, str],
    total_steps: int,
) -> TrainingState:
    """Return a state in which these parameters train, by a new optimizer. ``blocks``: of each by its name."""
    layout = block_layout(state.transformer)
    profile = config.profile(layout, total_steps=total_steps)
    learned = state.learned()
    return replace(
        state,
        optimizer=make_groups(state.transformer, config, profile),
        profile=profile,
        trained={name: learned[name] for name in blocks},
        blocks=dict(blocks),
        formerly_trained={
            name: parameter for name, parameter in learned.items() if name not in blocks
        },
    )


def _trained_by(state: TrainingState, config: TrainConfig) -> list[Row]:
    """Return the parameters that train with a config, in model order. Raises ConfigError unless all are there."""
    learned = state.learned()
    rows = {}
    for row in parameters_by_block(state.transformer):
        if row.name in learned:
            rows[row.name] = row
    modules = {name: _module_of(row, config) for name, row in rows.items()}
    wanted = trained_modules(config, model_spec(config))
    there = set(modules.values())
    missing = dict.fromkeys(
        module.block or OTHER for name, module in wanted.items() if name not in there
    )
    if missing:
        raise ConfigError(KEY, _untrained(list(missing)), _START_AGAIN)
    return [row for name, row in rows.items() if modules[name] in wanted]


def _module_of(row: Row, config: TrainConfig) -> str:
    """Return the module of the model that a parameter belongs to, or that its adapter is on."""
    adapted, _, rest = row.name.partition(".lora_")
    is_adapter = config.training_method in ADAPTERS and bool(rest)
    return plain_name(adapted if is_adapter else row.module)


def _untrained(blocks: list[str]) -> str:
    if len(blocks) == 1:
        return f"{blocks[0]} was at 0.0 when the run began, so there is nothing of it that could train"
    more = f"{blocks[0]} and {len(blocks) - 1} more"
    return f"{more} were at 0.0 when the run began, so there is nothing of them that could train"
