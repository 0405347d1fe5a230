"""How far a run is, in a few words and as a share."""

from blockrate.ui.live.watch import Watch
from blockrate.ui.parts.labels import duration, sentence


def headline(watch: Watch) -> str:
    """What the run does, or how it ended, in a few words."""
    progress = watch.history.progress
    step = f"step {progress.step:,}"
    match watch.state.name:
        case "Preparing":
            phase = sentence(progress.phase or "starting")
            if not progress.total:
                return phase
            return f"{phase} {progress.done:,} of {progress.total:,}"
        case "Running":
            return f"{sentence(step)} of {progress.total_steps:,}"
        case "No run":
            return f"Stopped at {step}"
        case "Stopping" | "Failed" as name:
            return f"{name} at {step}"
        case name:
            return f"{name} after {step}"


def share(watch: Watch) -> float:
    """How much of the run, or of its preparation, is done."""
    progress = watch.history.progress
    done = progress.step
    total = progress.total_steps
    if watch.state.name == "Preparing" or not total:
        done = progress.done
        total = progress.total
    return done / total if total else 0.0


def speed(watch: Watch) -> str:
    """How fast it is, for how long still, and the loss; nothing before the first step."""
    progress = watch.history.progress
    if not progress.step:
        return ""
    seconds = progress.seconds_per_step
    facts = ["— s/step" if seconds is None else f"{seconds:.3g} s/step"]
    if watch.state.name == "Running":
        left = progress.seconds_left
        facts.append("— left" if left is None else f"{duration(left)} left")
    if progress.loss is not None:
        facts.append(f"loss {progress.loss:.4g}")
    return " · ".join(facts)
