"""What may change between two sessions of a run, and whether a finished one has anything left to do."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from blockrate.config.fields import field_at, with_change
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.setting import (
    ANOTHER_RUN,
    DATA,
    LENGTH,
    MODULES,
    OUTPUT,
    RESULT,
    SILENT,
    STATE,
    Change,
)
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, WayOn
from blockrate.core.profile import FULL, KEY

Reset = Literal["new", "all"] | None

# what the learned weights hang on
_LEARNED_BY = (ANOTHER_RUN, DATA, STATE, MODULES, RESULT)
# no line: only the engine can see whether images and captions are the same
_NOT_TOLD = (DATA, SILENT)
_MOST_NAMES = 3


def check_changes(
    before: TrainConfig, now: TrainConfig, *, reset: Reset = None
) -> list[str]:
    """Return what differs, a line each, between the config a run was saved with and the one it goes on with.

    Multipliers, rates, samples and times of saving change freely. Raises ConfigError, naming the field, for what makes
    it another run, and for what the optimizer's state does not fit unless ``reset`` says to begin that anew.
    """
    old = before.model_dump(mode="json")
    new = now.model_dump(mode="json")
    differences = list(_differences(old, new))
    for path, was, is_now in differences:
        if _change(path) == ANOTHER_RUN:
            problem = f"the run was trained with {was!r}, the config says {is_now!r}"
            raise ConfigError(path, problem, "Set it back.", ways_on=["fresh"])
    if reset != "all":
        _refuse_unfit_state(before, now)
    if reset is None:
        _refuse_other_modules(before, now)
    return [
        _line(difference)
        for difference in differences
        if _change(difference.path) not in _NOT_TOLD
    ]


def left_to_do(
    before: TrainConfig, now: TrainConfig, *, trained: bool, can_go_on: bool = True
) -> bool:
    """Return whether a finished run has steps to take, or a file to write anew, for the config that is asked for now.

    ``trained``: it took steps, and did not only fill the cache. ``can_go_on``: it has a checkpoint. Raises ConfigError
    if it was trained with other settings than these and has no steps left to take: what it made is not what is asked
    for.
    """
    differences = list(_one_by_one(_differences(_in_effect(before), _in_effect(now))))
    other = [
        difference
        for difference in differences
        if _change(difference.path) in _LEARNED_BY or _is_fewer_epochs(difference)
    ]
    rest = {_change(entry.path) for entry in differences if entry not in other}
    if LENGTH in rest:
        return True
    if other and trained:
        raise _made_otherwise(other, can_go_on=can_go_on)
    return bool(other) or OUTPUT in rest


def goes_on(before: TrainConfig, now: TrainConfig, *, finished: bool) -> bool:
    """Return whether a run that was trained by one config may go on, or is done, by another one with the same data."""
    differences = _one_by_one(_differences(_in_effect(before), _in_effect(now)))
    if any(_change(difference.path) == DATA for difference in differences):
        return False
    try:
        check_changes(before, now)
        if finished:
            left_to_do(before, now, trained=True)
    except ConfigError:
        return False
    return True


def check_is_asked_for(at_work: TrainConfig, now: TrainConfig) -> None:
    """Raise ConfigError if a run at work will not make what a config asks for now, naming the fields."""
    differences = _one_by_one(_differences(_in_effect(at_work), _in_effect(now)))
    other = [
        difference
        for difference in differences
        if _change(difference.path) in (*_LEARNED_BY, LENGTH, OUTPUT)
    ]
    if other:
        path, was, is_now = other[0]
        problem = f"the run at work has {was!r}, the config says {is_now!r}"
        cure = "Set it back to watch that run, wait for its end, or choose another workspace_dir."
        raise ConfigError(path, problem + _told_with(other[1:]), cure)


def is_same(before: TrainConfig, now: TrainConfig, *, but: Container[str]) -> bool:
    """Return whether two configs come to the same, ``but`` for the settings at these paths."""
    differences = _one_by_one(_differences(_in_effect(before), _in_effect(now)))
    return all(difference.path in but for difference in differences)


def learns_otherwise(one: TrainConfig, other: TrainConfig) -> list[str]:
    """Return the settings on which what is learned hangs and that differ, the length of the run among them."""
    differences = _one_by_one(_differences(_in_effect(one), _in_effect(other)))
    return [
        difference.path
        for difference in differences
        if _change(difference.path) in (*_LEARNED_BY, LENGTH)
    ]


class Difference(NamedTuple):
    """A setting, and its values in two configs; of lists of different length the lengths."""

    path: str
    was: Any
    now: Any


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterator[Difference]:
    """Yield every field that differs, a list as a whole; a missing multiplier is 1.0."""
    # of the whole run, or in a phase of it
    missing = FULL if prefix.endswith(f"{KEY}.") else None
    for key in {**new, **old}:
        was = old.get(key, missing)
        is_now = new.get(key, missing)
        path = prefix + key
        if isinstance(was, Mapping) and isinstance(is_now, Mapping):
            yield from _differences(was, is_now, f"{path}.")
        elif was != is_now:
            yield Difference(path, was, is_now)


def _one_by_one(differences: Iterable[Difference]) -> Iterator[Difference]:
    """Yield the settings that differ inside lists, not the lists."""
    for path, was, now in differences:
        if not isinstance(was, list):
            yield Difference(path, was, now)
        elif len(was) != len(now):
            yield Difference(path, len(was), len(now))
        else:
            yield from _differences(_by_index(was), _by_index(now), f"{path}.")


def _by_index(entries: Sequence[Any]) -> dict[str, Any]:
    return {str(index): entry for index, entry in enumerate(entries)}


def _change(path: str) -> Change | None:
    field = field_at(path)
    return field.change if field else None


def _line(difference: Difference) -> str:
    if isinstance(difference.was, list):
        return f"{difference.path}: changed"
    return f"{difference.path}: {difference.was!r} -> {difference.now!r}"


def _refuse_unfit_state(before: TrainConfig, now: TrainConfig) -> None:
    old = _state(before)
    new = _state(now)
    for path in {**old, **new}:
        if old.get(path) != new.get(path):
            was = old.get(path)
            is_now = new.get(path)
            problem = f"the run was trained with {was}, whose optimizer state {is_now} cannot use"
            ways_on: Sequence[WayOn] = ("reset_all", "fresh")
            raise ConfigError(path, problem, "Set it back.", ways_on=ways_on)


def _refuse_other_modules(before: TrainConfig, now: TrainConfig) -> None:
    if before.layer_filter_in_effect() != now.layer_filter_in_effect():
        was = _words(before)
        problem = f"the run was trained with {was}, the config says {_words(now)}"
        ways_on: Sequence[WayOn] = ("reset_new", "fresh")
        raise ConfigError("layer_filter", problem, "Set it back.", ways_on=ways_on)


def _state(config: TrainConfig) -> dict[str, object]:
    """Return by field what decides the form of the optimizer's state."""
    row = OPTIMIZERS[config.optimizer.optimizer]
    values = row.values(config.optimizer)
    trained = "lora_weight_dtype"
    if config.training_method == "FINE_TUNE":
        trained = "transformer.weight_dtype"
    # of the first moment only whether there is one
    first_moment = "a first moment" if values.get("beta1") else "no first moment"
    form: dict[str, object] = {
        "optimizer.optimizer": row.name,
        "optimizer.beta1": first_moment,
        trained: config.trained_dtype(),
    }
    for path in with_change(STATE):
        name = path.removeprefix("optimizer.")
        if name in values:
            form.setdefault(path, values[name])
    return form


def _in_effect(config: TrainConfig) -> dict[str, Any]:
    """Return a config with what an empty setting stands for, and without what stands for nothing."""
    row = OPTIMIZERS[config.optimizer.optimizer]
    optimizer = {"optimizer": row.name, **row.values(config.optimizer)}
    values = config.model_dump(
        mode="json", exclude={"layer_filter_preset", "layer_filter_regex"}
    )
    chosen = config.layer_filter_in_effect()
    words = f"{_words(config)} (regex)" if chosen.regex else _words(config)
    return {**values, "optimizer": optimizer, "layer_filter": words}


def _words(config: TrainConfig) -> str:
    return ", ".join(config.layer_filter_in_effect().patterns) or "all layers"


def _is_fewer_epochs(difference: Difference) -> bool:
    return difference.path == "epochs" and difference.now < difference.was


def _made_otherwise(
    differences: Sequence[Difference], *, can_go_on: bool
) -> ConfigError:
    """Return the refusal to hand over what a finished run made with other settings."""
    path, was, now = differences[0]
    problem = f"the finished run was trained with {was!r}, the config says {now!r}"
    problem += _told_with(differences[1:])
    # the order of other images would not hold
    longer = can_go_on and _change(path) != DATA
    more = "raise epochs to go on with it, " if longer else ""
    cure = f"Set it back, {more}or choose another workspace_dir."
    return ConfigError(path, problem, cure, ways_on=["fresh"])


def _told_with(differences: Sequence[Difference]) -> str:
    """Return what is added to the telling of one difference, ``""`` where it is the only one."""
    others = [difference.path for difference in differences]
    if not others:
        return ""
    names = ", ".join(others[:_MOST_NAMES])
    if len(others) > _MOST_NAMES:
        names += f" and {len(others) - _MOST_NAMES} more"
    verb = "differs" if len(others) == 1 else "differ"
    return f" ({names} {verb}, too)"
