"""What a comparison says, in sentences; the app and the command line say the same."""

from collections.abc import Iterator, Sequence

from blockrate.core.verdict import FEWEST, Verdict
from blockrate.run.comparison import ComparedArm, Comparison
from blockrate.run.comparison_plan import PlannedRun, Work

FLAT = "flat at its mean"  # the control that counts, as ``core.controls`` calls it


def in_a_sentence(comparison: Comparison) -> str:
    """Return whether the first arm is better: than flat at its mean where that is there, else than each other."""
    first, *others = comparison.arms
    if not others:
        return "All of these runs have the same rates: nothing is compared."
    against = [arm for arm in others if arm.name == FLAT] or others[:1]
    found = against[0].subject.verdict
    assert found
    name = against[0].name
    if found.differs is None:
        return f"No verdict yet: {first.name} and {name} have {_seeds(found.pairs)} in common, and {FEWEST} are needed."
    if not found.differs:
        return f"No difference found between {first.name} and {name} in {_seeds(found.pairs)}."
    word = "better" if found.mean > 0 else "worse"
    sentence = (
        f"{first.name} is {word} than {name}: the subject's loss is {_less(-found.mean)} by {abs(found.mean):.4f} "
        f"after {comparison.step:,} steps, more than chance explains in {_seeds(found.pairs)}"
    )
    return f"{sentence}{_beside(against[0])}."


def sentences(comparison: Comparison) -> Iterator[str]:
    """Yield what is to be said of each arm beside the first, question by question, and what is missing."""
    first, *others = comparison.arms
    yield f"after {comparison.step} steps, each seed beside its own:"
    for arm in others:
        found = arm.subject.verdict
        yield f"  {arm.name}: {of_subject(found, first.name)}"
        if found and found.differs is None:
            # nor of anything else
            continue
        if arm.drift.verdict:
            yield f"  {arm.name}: {of_drift(arm.drift.verdict, first.name)}"
        if arm.at_equal_drift.verdict:
            told = of_subject(arm.at_equal_drift.verdict, first.name)
            yield f"  {arm.name}, at equal drift: {told}"
    if not others:
        yield "  all of these runs have the same rates: nothing is compared"
    if all(arm.drift.mean is None for arm in comparison.arms):
        yield "drift was not measured: it needs adapters, and runs of this version"
    for run in comparison.missing:
        yield f"missing: {run.arm}, seed {run.seed} ({run.path}): {run.why}"


def of_subject(found: Verdict | None, first: str) -> str:
    """Return in words what differences of the loss from the first arm say."""
    return _in_words(found, first, "the loss is {} than that of {} by {:.4f}")


def of_drift(found: Verdict | None, first: str) -> str:
    """Return in words what differences of the drift from the first arm say."""
    words = _in_words(found, first, "the drift is {} than that of {} by {:.3g}")
    return words.replace("no difference", "no difference of drift")


def _in_words(found: Verdict | None, first: str, form: str) -> str:
    assert found
    if found.differs is None:
        return f"{_seeds(found.pairs)} in common with {first}, and a verdict needs {FEWEST}"
    if not found.differs:
        return f"no difference found from {first}"
    return form.format(_less(found.mean), first, abs(found.mean))


def _less(difference: float) -> str:
    return "higher" if difference > 0 else "lower"


def _seeds(number: int) -> str:
    return "1 seed" if number == 1 else f"{number} seeds"


def _beside(arm: ComparedArm) -> str:
    """Return what the drift adds to a verdict on the loss."""
    drift, equal = arm.drift.verdict, arm.at_equal_drift.verdict
    if not drift or not equal or drift.differs is None:
        return ""
    words = "no difference of drift was found"
    if drift.differs:
        words = f"its drift is {_less(-drift.mean)}"
    if equal.differs:
        better = "better" if equal.mean > 0 else "worse"
        return f"; {words}, and at equal drift it is {better}"
    return f"; {words}, and at equal drift no difference was found"


def work_in_words(planned: Sequence[PlannedRun], work: Work) -> Iterator[str]:
    """Yield how many runs are planned, and how long those take that are left."""
    names = ", ".join(dict.fromkeys(run.arm for run in planned))
    yield f"{len(planned)} runs of {work.steps:,} steps: {names}"
    if work.runs < len(planned):
        yield f"{len(planned) - work.runs} of them are finished"
    if work.hours is None:
        yield "how long they take is not known before the config has been trained once"
    else:
        yield f"about {work.hours:.1f} hours by the steps of the run that is there, and the time each takes to start"
