"""What each block could learn first, measured before a run: gradients of a few batches, no optimizer, no change."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blockrate.config.plan import make_plan
from blockrate.config.probed import as_probed, costs_by_first_block, probe_hash
from blockrate.config.train_config import TrainConfig
from blockrate.core import advice
from blockrate.core.advice import Probe
from blockrate.core.errors import ConfigError
from blockrate.engine import flow_matching
from blockrate.engine.adapters import lora
from blockrate.engine.adapters.sketch import Sketch
from blockrate.engine.data.cache import prefetch
from blockrate.engine.data.halves import Group, ProbeBatch, has_halves, probe_groups
from blockrate.engine.data.noised import NoisedBatch, with_noise
from blockrate.engine.device import on_device, tell_of_loading, tell_of_room
from blockrate.engine.exactness import allow_tf32, reproducible
from blockrate.engine.measuring import Readings, blocks_found, measure, total_found
from blockrate.engine.models.common import FamilyModule
from blockrate.engine.preparation import Data, prepare_data
from blockrate.engine.steps import flow_loss
from blockrate.engine.world import world
from blockrate.run.durable import atomic_write
from blockrate.run.events import EventLog, Phase
from blockrate.run.folder import RunFolder, StopFlag
from blockrate.run.probe_file import asked_of, probe_json

# stands for the step in the draws of noise, less the part of the pictures: no step of training and no validation
_PROBE = -2


@dataclass(frozen=True)
class Sketched:
    """A transformer with adapters in all that could train, and the sums of their gradients."""

    model: Any
    family: FamilyModule
    device: torch.device
    sketch: Sketch


def probe(
    config: TrainConfig, run: RunFolder, log: EventLog, stop: StopFlag
) -> list[Path]:
    """Measure what each block could learn first, write it into ``run``, and return the file.

    The model, its cache, and what is in the folder of the run to be stay as they are.
    """
    if world().is_many:
        problem = "a probe measures on one GPU, and a launcher started several"
        raise ConfigError("task", problem, "Start it with `blockrate probe`.")
    asked = asked_of(run)
    probed = as_probed(config)
    plan = make_plan(probed)
    with ExitStack() as stack:
        stack.enter_context(reproducible(config.deterministic))
        device = stack.enter_context(on_device(probed))
        told = tell_of_room(plan, probed, device, log)
        data = prepare_data(probed, device, log, stop, check=lambda _: None)
        items = data.order.items
        groups = probe_groups(probed, items, data.validation, asked.batches)
        tell_of_loading(plan, probed, device, log, told=told)
        allow_tf32(probed, device)
        sketched = _sketched(data, probed, device)
        stop.obey()
        loss_of = stack.enter_context(_losses(sketched, data, groups, probed))
        tell = _Progress(groups, log, stop)
        readings = measure(sketched.sketch, groups, loss_of, tell)
    found = _found(config, data, sketched.sketch, readings)
    stop.obey()
    atomic_write(run.probe_file, probe_json(found, asked))
    return [run.probe_file]


def _sketched(data: Data, config: TrainConfig, device: torch.device) -> Sketched:
    """Load the transformer and put adapters into it, of which only what starts at zero gets gradients."""
    family = data.files.family
    transformer = family.load_transformer(data.files, config, device)
    lora.add_learned(transformer, config, {})
    return Sketched(transformer, family, device, Sketch(transformer))


@contextmanager
def _losses(
    sketched: Sketched, data: Data, groups: Sequence[Group], config: TrainConfig
) -> Iterator[Callable[[ProbeBatch], Tensor]]:
    """Give what returns the loss of each batch, to be asked for in the order of the groups: they are made ahead."""
    make = partial(_noised, data, config)
    with closing(prefetch(make, in_order(groups))) as made:

        def loss_of(batch: ProbeBatch) -> Tensor:
            return flow_loss(sketched, next(made), config)

        yield loss_of


def in_order(groups: Sequence[Group]) -> list[ProbeBatch]:
    """Return all batches of groups as they are measured."""
    return list(chain.from_iterable(chain.from_iterable(groups)))


def _noised(data: Data, config: TrainConfig, batch: ProbeBatch) -> NoisedBatch:
    read = data.cache.batch(batch.examples)
    step = _PROBE - batch.part
    shape = read.latents.shape
    noise, _ = flow_matching.draw(config.seed, step, batch.number, shape)
    family = data.files.family
    made = with_noise(read, config, family, noise, torch.tensor(batch.uniform))
    return made.pinned() if data.device.type == "cuda" else made


class _Progress:
    """Tells how many batches are measured, and obeys a stop between two."""

    def __init__(self, groups: Sequence[Group], log: EventLog, stop: StopFlag) -> None:
        self.log = log
        self.stop = stop
        self.done = 0
        self.total = len(in_order(groups))
        self._tell()

    def __call__(self) -> None:
        self.done += 1
        self._tell()
        self.stop.obey()

    def _tell(self) -> None:
        self.log.write(Phase("probing", self.done, self.total), step=0)


def _found(
    config: TrainConfig, data: Data, sketch: Sketch, readings: Readings
) -> Probe:
    """Return what was measured, and what it comes to for the config that asked for it."""
    blocks = blocks_found(sketch, readings)
    items = data.order.items
    total = total_found(readings, has_halves=has_halves(data.order.config, items))
    gains = {name: block.gain for name, block in blocks.items()}
    rows = advice.by_first_block(gains, costs_by_first_block(config, data.files.spec))
    return Probe(
        config_hash=probe_hash(config),
        model=config.base_model_name,
        images=len(items),
        held_out_images=sum(map(len, data.validation)),
        batch_size=config.batch_size,
        rank=config.lora_rank,
        seed=config.seed,
        learning_rate=config.base_learning_rate(),
        blocks=blocks,
        total=total,
        verdict=advice.verdict(total),
        by_first_block=rows,
        proposals=advice.proposals(gains, rows),
    )
