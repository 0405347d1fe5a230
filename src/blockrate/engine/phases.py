"""Phases of block rates: in each some blocks stand still, and keep what they learned and their moments."""

from blockrate.engine.live_rates import spread_anew
from blockrate.engine.profile_rates import set_rates
from blockrate.engine.state import TrainingState, groups_of
from blockrate.run.events import EventLog, Rates


def begin_phase(state: TrainingState, log: EventLog, step: int) -> bool:
    """Let train what trains in ``step``, and tell of a phase that begins there; return whether one does.

    ``step``: 0 is the first. To be called before each step; a session may begin in the middle of a phase.
    """
    multipliers = state.profile.at(step)
    begins = step in state.profile.changes()
    moved = False
    for name, parameter in state.trained.items():
        trains = multipliers[state.blocks[name]] > 0.0
        if parameter.requires_grad != trains:
            parameter.requires_grad_(trains)
            moved = True
    if moved:
        spread_anew(state)
    if begins:
        set_rates(state.optimizer, 1.0, multipliers)
        before = dict(state.profile.at(step - 1))
        log.write(Rates(before, dict(multipliers), groups=groups_of(state)), step=step)
    return begins
