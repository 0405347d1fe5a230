"""The samples of a run: drawn by one process, or by several that share the prompts or the model."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from blockrate.config.train_config import TrainConfig
from blockrate.engine import ranks
from blockrate.engine.memory import computing_in
from blockrate.engine.models.sample import Spoilt, sample_images
from blockrate.engine.preparation import Data
from blockrate.engine.state import TrainingState
from blockrate.engine.twins import drawing_by
from blockrate.run.folder import StopFlag


@dataclass(frozen=True)
class Drawn:
    """Samples of one kind. ``files``: by number. ``spoilt``: those that are no pictures. ``is_whole``: no stop came."""

    files: dict[int, Path] = field(default_factory=dict)
    spoilt: list[Spoilt] = field(default_factory=list)
    is_whole: bool = True


def draw_samples(
    config: TrainConfig,
    state: TrainingState,
    data: Data,
    folder: Path,
    stop: StopFlag,
    *,
    step: int,
    averaged: bool,
) -> Drawn:
    """Draw this rank's share of the samples into ``folder``; where the weights are shared out, all draw every one.

    ``averaged``: by the average of the weights, if there is one.
    """
    numbers = list(range(len(data.prompts)))
    if not ranks.is_sharded():
        numbers = numbers[data.world.rank :: data.world.size]
    drawn = Drawn()
    for name, some in _by_twin(data, numbers).items():
        twin = data.twins.get(name)
        by_it = drawing_by(twin, state, config) if twin else nullcontext()
        with by_it, state.evaluation(averaged=averaged):
            more = _drawn(config, state, data, folder, stop, step=step, numbers=some)
        if not more.is_whole:
            return more
        files = dict(sorted({**drawn.files, **more.files}.items()))
        drawn = Drawn(files, sorted([*drawn.spoilt, *more.spoilt]))
    return drawn


def _by_twin(data: Data, numbers: Sequence[int]) -> dict[str, list[int]]:
    """Return the numbers of samples by what draws them, "" being the model that trains."""
    found: dict[str, list[int]] = {}
    for number in numbers:
        found.setdefault(data.prompts[number].sample.preview, []).append(number)
    return found


def _drawn(
    config: TrainConfig,
    state: TrainingState,
    data: Data,
    folder: Path,
    stop: StopFlag,
    *,
    step: int,
    numbers: Sequence[int],
) -> Drawn:
    """Draw the samples of these numbers by the weights that are in the transformer now."""
    writes = data.world.is_first or not ranks.is_sharded()
    spoilt: list[Spoilt] = []
    files = data.files
    images = sample_images(
        files,
        state.transformer,
        lambda: files.family.load_vae(
            files.parts["vae"],
            weight_dtype=config.vae.weight_dtype,
            device=state.device,
        ),
        [data.prompts[number] for number in numbers],
        folder=folder,
        step=step,
        precision=partial(computing_in, config.autocasts(), state.device),
        should_stop=partial(ranks.is_asked_in_passes, stop),
        tell_spoilt=spoilt.append,
        numbers=numbers,
        writes=writes,
    )
    bad = {sample.number for sample in spoilt}
    drawn = [number for number in numbers if number not in bad]
    if not writes:
        return Drawn()
    if len(images) < len(drawn):
        return Drawn(is_whole=False)
    return Drawn(dict(zip(drawn, images, strict=True)), spoilt)


def together(mine: Drawn) -> Drawn:
    """Return what all ranks have drawn; nothing, if a stop came to one before it had all of its own."""
    every = ranks.gathered(mine)
    if not all(drawn.is_whole for drawn in every):
        return Drawn(is_whole=False)
    files: dict[int, Path] = {}
    spoilt: list[Spoilt] = []
    for drawn in every:
        files |= drawn.files
        spoilt += drawn.spoilt
    return Drawn(dict(sorted(files.items())), sorted(spoilt))
