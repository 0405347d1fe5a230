"""What a training step costs beside forward and backward: ours, a bare loop's, and the diffusers script's.

Goals: a step <= 1.03 of the bare loop's, <= 1.05 of one without PEFT or wrapper, <= 0.9 of the script's; step minus
forward and backward <= 10 ms on the 4 + 8-block toy; 57 different rates <= 1.01 of none; telemetry at its default <= 1
% of a step. The first three are printed as rows of their own.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import torch
from bare_loop import bare_loop
from bare_model import without_wrappers
from common import (
    TOY,
    arguments,
    interleaved,
    make_toy,
    milliseconds,
    ratios,
    scratch,
    spread,
    table,
    toy_config,
    toy_data,
)
from peer import PeerTimes, peer_times
from work import Work, watch_work

from blockrate.core.profile import Profile
from blockrate.engine import profile_rates, train
from blockrate.engine.optimizers import make_optimizer
from blockrate.engine.outputs import Outputs
from blockrate.engine.parameter_groups import block_layout, parameter_groups
from blockrate.engine.state import make_training_state
from blockrate.engine.steps import TakenStep, take_step
from blockrate.engine.telemetry import BlockTelemetry
from blockrate.engine.tensorboard_writer import TensorBoardWriter
from blockrate.models.families import FAMILIES
from blockrate.run.events import EventLog
from blockrate.run.folder import RunFolder, StopFlag

CPU = torch.device("cpu")
BARE = "bare loop, our adapters"
PLAIN = "bare loop without PEFT or wrapper"
OURS = "blockrate"
# whether it caches latents, by what it is called
PEERS = {
    "diffusers script, no cache": False,
    "diffusers script, --cache_latents": True,
}
# the most that our step may be of another's
GOALS = {BARE: 1.03, PLAIN: 1.05, **dict.fromkeys(PEERS, 0.9)}
LAYOUT = FAMILIES["flux1-dev"].spec.layout  # 19 + 38 blocks
RATES = {name: round(0.99 - 0.01 * index, 2) for index, name in enumerate(LAYOUT.names)}


@dataclass
class Case:
    """A loop's steps in seconds: whole, and forward and backward alone."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    processor_work: list[float] = field(default_factory=list)

    def extend(self, other: "Case") -> None:
        """Take over the steps of another."""
        for mine, more in zip(vars(self).values(), vars(other).values(), strict=True):
            mine.extend(more)

    def row(self, name: str, bare: "Case | None" = None) -> list[str]:
        """Return this loop's line of the table."""
        of_bare = (
            [ratios(self.wall, bare.wall), ratios(self.processor, bare.processor)]
            if bare
            else []
        )
        return [
            name,
            *([spread(values) for values in of_bare] or ["", ""]),
            spread(ratios(self.wall, self.work)),
            milliseconds(self.wall),
            milliseconds(
                [step - work for step, work in zip(self.wall, self.work, strict=True)]
            ),
            milliseconds(
                [
                    step - work
                    for step, work in zip(
                        self.processor, self.processor_work, strict=True
                    )
                ]
            ),
        ]


def main() -> None:
    """Print all figures."""
    options = arguments(__doc__, rounds=60, peer_rounds=3)
    with scratch() as folder:
        make_toy(folder)
        rounds = [
            one_round(folder, number, options)
            for number in range(max(1, options.peer_rounds))
        ]
        laps = together(rounds)
        rows = []
        for name, case in laps.items():
            rows.append(case.row(name, None if name in PEERS else laps[BARE]))
        table(
            "A step of the toy, 4 + 8 blocks of width 256, LoRA rank 16 on attention, fp32, batch 1",
            _HEADER,
            rows,
        )
        table("blockrate's step, of others'", _GOAL_HEADER, goal_rows(rounds))
        many = make_toy(folder / "many", spec=replace(TOY, layout=LAYOUT))
        rates_and_telemetry(many, options.rounds // 2)


def one_round(
    folder: Path, number: int, options: argparse.Namespace
) -> dict[str, Case]:
    """Return the steps of a share of the rounds, and of the script, with and without its cache, right after them."""
    share = math.ceil(options.rounds / max(1, options.peer_rounds))
    laps = train_beside_bare_loops(folder, share, run=f"run-{number}")
    if options.diffusers:
        for name, cached in PEERS.items():
            times = peer_times(options.diffusers, folder, steps=30, cached=cached)
            laps[name] = steps_of_script(times)
    return laps


def steps_of_script(times: PeerTimes) -> Case:
    """Return the script's steps, without the two that follow its first one."""
    return Case(
        times.steps[2:],
        times.processor_steps[2:],
        times.work[2:],
        times.processor_work[2:],
    )


def together(rounds: list[dict[str, Case]]) -> dict[str, Case]:
    """Return all steps of each loop."""
    laps: dict[str, Case] = {}
    for one in rounds:
        for name, case in one.items():
            laps.setdefault(name, Case()).extend(case)
    return laps


def goal_rows(rounds: list[dict[str, Case]]) -> list[list[str]]:
    """Return what our step is of others': step by step where they go in turns, else median by median of each round."""
    rows = []
    for name, goal in GOALS.items():
        if name not in rounds[0]:
            continue
        by_round = name in PEERS
        ours = wall_and_processor(rounds, OURS, by_round=by_round)
        theirs = wall_and_processor(rounds, name, by_round=by_round)
        figures = [spread(ratios(*pair)) for pair in zip(ours, theirs, strict=True)]
        count = str(len(ours[0]))
        rows.append([f"blockrate / {name}", *figures, count, f"<= {goal}"])
    return rows


def wall_and_processor(
    rounds: list[dict[str, Case]], name: str, *, by_round: bool
) -> tuple[list[float], list[float]]:
    """Return the seconds of a loop's steps, or of each round their median."""
    if not by_round:
        whole = together(rounds)[name]
        return whole.wall, whole.processor
    cases = [one[name] for one in rounds]
    wall = [statistics.median(case.wall) for case in cases]
    return wall, [statistics.median(case.processor) for case in cases]


def train_beside_bare_loops(folder: Path, rounds: int, *, run: str) -> dict[str, Case]:
    """Let the trainer train in the folder ``run``; after each of its steps two bare loops take one.

    One is on the same model and adapters, the other on plain Linears without PEFT or anything of ours. The trainer's
    step is everything from their steps to the next: waiting for the prefetched batch, the schedule,
    the step, events, TensorBoard, and looking what is due.
    """
    warm_up = 5
    laps = {name: Case() for name in (BARE, PLAIN, OURS)}
    unmeasured = {name: Case() for name in laps}
    config = toy_config(
        folder,
        workspace_dir=str(folder / run),
        output_model_destination=str(folder / run / "lora.safetensors"),
        epochs=math.ceil((rounds + warm_up) / 6),
        backup_after_unit="NEVER",
    )

    class Visited(Outputs):
        """The trainer's outputs, and a bare step after them."""

        def before_first_step(self, step: int) -> None:
            super().before_first_step(step)
            optimizer = torch.optim.AdamW(
                self.state.trained.values(), lr=1e-4, fused=True
            )
            batch = self.data.step_batches(0)[0]
            self.bare_step = bare_loop(self.state, batch, optimizer)
            plain = without_wrappers(self.state)
            optimizer = torch.optim.AdamW(plain.trained.values(), lr=1e-4, fused=True)
            self.plain_step = bare_loop(plain, batch, optimizer)
            self.stopwatch = Stopwatch(work)

        def after_step(self, step: int, taken: TakenStep, rate: float) -> None:
            super().after_step(step, taken, rate)
            measured = laps if step > warm_up else unmeasured
            self.stopwatch.lap(measured[OURS])
            self.bare_step()
            self.stopwatch.lap(measured[BARE])
            self.plain_step()
            self.stopwatch.lap(measured[PLAIN])

    with watch_work() as work, patch.object(train, "Outputs", Visited):
        run_folder = RunFolder(Path(config.workspace_dir))
        run_folder.create("{}")
        log = EventLog(run_folder.events_file)
        train.train(config, run_folder, log, StopFlag())
    return laps


def rates_and_telemetry(folder: Path, rounds: int) -> None:
    """Compare steps of the full layout on one model: one rate, 57 rates, and 57 rates with telemetry in every step.

    Beside whole steps stand the parts that differ, timed alone: they show what the noise of whole steps hides.
    """
    config = toy_config(folder)
    log = EventLog(folder / "events.jsonl")
    data = toy_data(config)
    batches = data.step_batches(0)
    state = make_training_state(data.files, config, CPU)
    parts: dict[str, list[float]] = {}

    def case(
        name: str, multipliers: dict[str, float], *, telemetry: bool
    ) -> Callable[[], None]:
        groups = parameter_groups(
            state.transformer, learning_rate=1e-4, multipliers=multipliers
        )
        profile = Profile.of(multipliers, block_layout(state.transformer))
        groups = profile_rates.with_multipliers(groups, profile, base_lr=1e-4)
        optimizer = make_optimizer(groups, config.optimizer, seed=0)
        mine = replace(state, optimizer=optimizer, profile=profile)
        watched = (
            BlockTelemetry(mine.transformer, mine.optimizer) if telemetry else None
        )
        board = TensorBoardWriter(folder / "board", log)
        part = Work()
        times = parts.setdefault(name, [])
        for owner, names in (
            (mine.optimizer, ["step"]),
            (watched, ["before_step", "after_step"]),
            (board, ["step"]),
        ):
            for method in names if owner else ():
                setattr(owner, method, part.timed(getattr(owner, method)))

        def step() -> None:
            before = part.wall
            rates = mine.profile.at(0)
            part.timed(profile_rates.set_rates)(mine.optimizer, 1.0, rates)
            taken = take_step(mine, batches, config, step=0, telemetry=watched)
            result = taken.result()
            if result.blocks:
                part.timed(log.write)(result.blocks, step=0)
            board.step(0, result, 1e-4)
            times.append(part.wall - before)

        return step

    off = "one rate"
    on = "57 rates"
    watched = "57 rates, telemetry every step"
    cases = {off: case(off, {}, telemetry=False), on: case(on, RATES, telemetry=False)}
    times = interleaved(
        {**cases, watched: case(watched, RATES, telemetry=True)}, rounds=rounds
    )
    rows = []
    for label, name, reference, every in (
        ("57 rates / one rate", on, off, 1),
        (
            f"telemetry every {config.telemetry_every} steps (default) / none",
            watched,
            on,
            config.telemetry_every,
        ),
    ):
        whole = [
            [
                1 + (ratio - 1) / every
                for ratio in ratios(
                    getattr(times[name], kind), getattr(times[reference], kind)
                )
            ]
            for kind in ("wall", "processor")
        ]
        extra = [
            1 + (one - other) / every / step
            for one, other, step in zip(
                parts[name][-rounds:],
                parts[reference][-rounds:],
                times[reference].wall,
                strict=True,
            )
        ]
        rows.append([label, spread(extra, ".4f"), *map(spread, whole)])
    table(
        "Rates and telemetry, 19 + 38 blocks of width 256",
        ["what", "by its parts", "wall", "processor"],
        rows,
    )
    print(
        "\nms a step: "
        + ", ".join(f"{name} {milliseconds(one.wall)}" for name, one in times.items())
    )


_HEADER = (
    "loop",
    "step, of bare: wall",
    "processor",
    "step / (fwd + bwd)",
    "ms step",
    "ms beside fwd + bwd",
    "processor",
)
_GOAL_HEADER = ("ratio", "wall", "processor", "rounds", "goal")


class Stopwatch:
    """Tells what each lap took, and how much of it was forward and backward."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.last = self.now()

    def now(self) -> tuple[float, ...]:
        """Return clock and processor time, then both of forward and backward, so far."""
        return (
            time.perf_counter(),
            time.process_time(),
            self.work.wall,
            self.work.processor,
        )

    def lap(self, case: Case) -> None:
        """Write down what passed since the last lap."""
        before = self.last
        self.last = self.now()
        for times, now, then in zip(
            vars(case).values(), self.last, before, strict=True
        ):
            times.append(now - then)


if __name__ == "__main__":
    main()
