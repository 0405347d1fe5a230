"""What the run is doing, how far it is and what can be done with it: the one place where every page takes it from."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from blockrate.config.many_gpus import images_of_a_step
from blockrate.core.plain_text import visible
from blockrate.core.units import size_text
from blockrate.run.events import Rank
from blockrate.ui.live.card_memory import memory_of_run, planned_bytes
from blockrate.ui.live.watch import ALIVE, Watch
from blockrate.ui.parts.labels import duration, sentence

NEXT_START = (
    "A run is at work and keeps its settings. What you change is for the next start."
)


def headline(watch: Watch) -> str:
    """What the run does, or how it ended, in a few words."""
    progress = watch.history.progress
    step = f"step {progress.step:,}"
    name = watch.state.name
    if name == "Running" and not progress.total_steps:
        # it samples or validates before its first step
        return sentence(progress.phase or "starting")
    match name:
        case "Preparing":
            phase = sentence(progress.phase or "starting")
            if not progress.total:
                return phase
            return f"{phase} {progress.done:,} of {progress.total:,}"
        case "Running":
            return f"{sentence(step)} of {progress.total_steps:,}"
        case "Stopping" | "Stopped" | "Failed" as name:
            return f"{name} at {step}"
        case name:
            return f"{name} after {step}"


def details(watch: Watch) -> str:
    """What the headline does not say yet: why it failed, since when it runs, that it does not answer."""
    state = watch.state
    if state.name not in ALIVE:
        says_more = state.exit_code not in (0, 75)
        return state.sentence if says_more else ""
    facts = [state.sentence] if state.name == "Stopping" or not state.since else []
    if state.since:
        facts = [*facts, f"since {_local(state.since)}"]
    if state.silent:
        facts = [*facts, f"not responding for {duration(state.silent)}"]
    if state.stuck:
        facts = [*facts, f"no step for {duration(state.stuck)}"]
    return " · ".join(facts)


def _local(time: str) -> str:
    """A time in ISO 8601 as a clock on the wall here shows it; what is none stays."""
    with suppress(ValueError):
        return f"{datetime.fromisoformat(time).astimezone():%Y-%m-%d %H:%M}"
    return time


def share(watch: Watch) -> float:
    """How much of the run, or of its preparation, is done."""
    progress = watch.history.progress
    done = progress.step
    total = progress.total_steps
    if watch.state.name == "Preparing" or not total:
        done = progress.done
        total = progress.total
    return done / total if total else 0.0


def time_left(watch: Watch) -> str:
    """For how long still the run trains; nothing while that cannot be said, or when it is over."""
    seconds = watch.history.progress.seconds_left
    if watch.state.name != "Running" or not seconds:
        return ""
    return f"{duration(seconds)} left"


def doing(watch: Watch) -> str:
    """What is being done and for how long still; nothing when nothing is."""
    if watch.state.name not in ALIVE:
        return ""
    return " · ".join(filter(None, (headline(watch), time_left(watch))))


def speed(watch: Watch) -> str:
    """How fast it is, for how long still, and the loss, as far as they are known."""
    progress = watch.history.progress
    if not progress.step:
        return ""
    facts = []
    if progress.seconds_per_step is not None:
        facts.append(f"{progress.seconds_per_step:.3g} s/step")
        facts += images_a_second(watch)
    facts.append(time_left(watch))
    if progress.loss is not None:
        facts.append(f"loss {progress.loss:.4g}")
    return " · ".join(filter(None, facts))


def images_a_second(watch: Watch) -> list[str]:
    """How many images it learns from in a second, on however many GPUs; nothing while that is not known."""
    seconds = watch.history.progress.seconds_per_step
    config = watch.history.config
    if not seconds or config is None:
        return []
    return [f"{images_of_a_step(config) / seconds:.3g} images/s"]


def gpus(watch: Watch) -> str:
    """The run's GPUs, with what each has held at most and was to; nothing for a run on a processor alone."""
    cards = watch.history.cards
    many = len(cards.ranks) > 1
    if not cards.ranks or not (many or cards.peaks):
        return ""
    told = [_gpu(rank, cards.peaks, numbered=many) for rank in cards.ranks]
    config = watch.history.config
    planned = planned_bytes(config) if config and cards.peaks else 0
    plan = f", {size_text(planned)} planned" if planned else ""
    if not many:
        return f"{told[0]}{plan}"
    shared = ", which share the weights" if cards.sharding == "FULL" else ""
    each = f"{plan} for each" if plan else ""
    return f"{len(told)} GPUs{shared}: {' · '.join(told)}{each}"


def memory_now(watch: Watch) -> str:
    """What the cards hold now that the run trains on; nothing when it does not, or elsewhere."""
    if watch.state.name not in ALIVE:
        return ""
    history = watch.history
    return memory_of_run(history.config, history.cards.ranks, watch.memory)


def _gpu(rank: Rank, peaks: Mapping[int, int], *, numbered: bool) -> str:
    """A GPU, and of its memory the most that was held."""
    number = f"{rank.rank} " if numbered else ""
    text = f"{number}{visible(rank.device)} on {visible(rank.host)}"
    if rank.rank in peaks:
        text += f", {size_text(peaks[rank.rank])} used at most"
    return text


def why_not_start(watch: Watch) -> str:
    """Why no run can be started now, nothing if one can."""
    if watch.starting or watch.state.name in ALIVE:
        return "A run is at work. Stop it first."
    return ""


def why_not_stop(watch: Watch) -> str:
    """Why there is nothing to stop, nothing if there is."""
    if watch.starting or watch.state.name in ("Preparing", "Running"):
        return ""
    if watch.state.name == "Stopping":
        return "The run is stopping already."
    return "No run is at work."


def why_no_samples(watch: Watch) -> str:
    """Why a run draws nothing when it is asked to, nothing if it does."""
    if reason := why_no_save(watch):
        return reason
    config = watch.history.config
    if config is None or any(sample.enabled for sample in config.samples):
        return ""
    return "This run has no prompts. Add one in Sampling: it is for the next start."


def why_no_save(watch: Watch) -> str:
    """Why a run saves nothing when it is asked to, nothing if it does."""
    if watch.state.name == "Running":
        return ""
    if watch.state.name == "Stopping":
        return "The run is stopping: it takes no more requests."
    return "No run is at work."
