"""The rounds of a race: each contestant takes a step, in another order each time."""

import argparse
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from device.card import GIB
from device.kohya.contestant import QUIET, Contestant, OperatorCount
from device.kohya.ours import bare_ours, random_loading, train_ours
from device.kohya.parts import Parts
from device.kohya.race import Race, make_folder, spec_and_device
from device.kohya.sd_scripts import (
    SdScripts,
    bare_peer,
    import_peer,
    quiet_peer,
    replace_loaders,
    train_peer,
)
from device.kohya.table import print_table, rows_of, write
from device.kohya.told import adapters, difference_of_models

LIBRARIES = ("transformers", "diffusers", "accelerate", "peft")
BORROWING = ("bare-", QUIET)  # step on the model of another


@dataclass(frozen=True)
class Turn:
    """What a contestant does when it is its turn. ``lent``: what the owner of its model runs for it, if it does."""

    contestant: Contestant
    owner: Contestant
    take: Callable[[], None]
    lent: Callable[[], None] | None = None


def compete(
    options: argparse.Namespace,
    folder: Path,
    *,
    begun: float,
    screen: TextIO,
    talk: TextIO,
) -> None:
    """Start the contestants of ``options.run``, run the rounds, and print the table on the screen."""

    def say(text: str) -> None:
        passed = time.monotonic() - begun
        print(f"[{passed:4.0f} s] {text}", file=screen, flush=True)

    race = race_of(options, folder)
    peer, parts = prepare(race)
    facts = facts_of(race)
    say(str(facts))
    contestants = {name: Contestant(name, talk) for name in options.run}
    with random_loading(race):
        for contestant in contestants.values():
            start(contestant, peer, race, facts, say)
    turns = turns_of(contestants, peer, race)
    say(f"equal models: {difference_of_models(race, peer, contestants.values())}")
    for number in range(options.warm + options.rounds):
        if time.monotonic() - begun > options.seconds:
            say("out of time")
            break
        for turn in shuffled(turns, number):
            if number < options.warm:
                turn.take()
            else:
                measure(turn, parts, race.device)
    for turn in turns.values():
        count_operators(turn)
    if not turns[options.run[0]].contestant.figures.wall:
        say("no round was measured: allow more with --seconds")
        return
    rows = rows_of(contestants, options.run[0], is_on_gpu=race.device.type == "cuda")
    write(rows, facts, options.out)
    print_table(rows, screen)
    say(str(facts))
    for contestant in contestants.values():
        contestant.end()


def prepare(race: Race) -> tuple[SdScripts, Parts]:
    """Make the model and the images, import the peer, and begin to watch."""
    if race.device.type == "cpu":
        torch.set_num_threads(1)
    make_folder(race)
    peer = import_peer()
    replace_loaders(peer, race)
    parts = Parts()
    parts.watch(peer)
    return peer, parts


def race_of(options: argparse.Namespace, folder: Path) -> Race:
    spec, device = spec_and_device(options.shape)
    is_on_gpu = device.type == "cuda"
    return Race(
        shape=options.shape,
        modules=options.modules,
        checkpointing=options.checkpointing,
        pixels=options.pixels or (512 if is_on_gpu else 64),
        text_tokens=512 if is_on_gpu else 64,
        spec=spec,
        device=device,
        folder=folder,
        peer_words=options.peer_args.split(),
        is_bf16=options.bf16 or options.shape == "full",
    )


def facts_of(race: Race) -> dict[str, Any]:
    facts = {
        "shape": race.shape,
        "bf16": race.is_bf16,
        "modules": race.modules,
        "checkpointing": race.checkpointing,
        "pixels": race.pixels,
        "text": race.text_tokens,
        "torch": torch.__version__,
    }
    for name in LIBRARIES:
        if name in sys.modules:
            facts[name] = sys.modules[name].__version__
    return facts


def start(
    contestant: Contestant,
    peer: SdScripts,
    race: Race,
    facts: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    """Let a trainer load its model and take two steps, the second with moments; those who borrow a model need not."""
    name = contestant.name
    if name.startswith(BORROWING):
        return
    is_on_gpu = race.device.type == "cuda"
    before = 0
    if is_on_gpu:
        before = torch.cuda.memory_allocated()
    if name.startswith("ours"):
        contestant.start(lambda me: train_ours(race, me))
    else:
        contestant.start(lambda me: train_peer(peer, race, me))
    if is_on_gpu:
        # what streams lay there whole while it was made
        torch.cuda.reset_peak_memory_stats()
    contestant.step()
    contestant.step()
    if is_on_gpu:
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        facts[f"peak GiB of {name}"] = round(peak / GIB, 2)
    say(f"{name} takes steps: {adapters(contestant)}")


def turns_of(
    contestants: dict[str, Contestant], peer: SdScripts, race: Race
) -> dict[str, Turn]:
    """Return what a turn of each contestant is."""
    turns = {}
    for name, contestant in contestants.items():
        owner = owner_of(name, contestants)
        if name.startswith("bare-ours"):
            turns[name] = lent_turn(contestant, owner, bare_ours(owner))
        elif name.startswith("bare-"):
            turns[name] = lent_turn(contestant, owner, bare_peer(peer, race, owner))
        elif name.startswith(QUIET):
            turns[name] = Turn(contestant, owner, quiet_peer(owner))
        else:
            turns[name] = Turn(contestant, owner, owner.step)
    return turns


def owner_of(name: str, contestants: dict[str, Contestant]) -> Contestant:
    """Return whose model a contestant steps on."""
    for word in BORROWING:
        name = name.removeprefix(word)
    return contestants[name]


def lent_turn(
    contestant: Contestant, owner: Contestant, job: Callable[[], None]
) -> Turn:
    return Turn(contestant, owner, lambda: owner.lend(job), lent=job)


def shuffled(turns: dict[str, Turn], number: int) -> list[Turn]:
    """Return the order of a round: whoever always followed its own model would find a warm cache."""
    return random.Random(number).sample(list(turns.values()), len(turns))


def measure(turn: Turn, parts: Parts, device: torch.device) -> None:
    """Take a turn, and note what it took."""
    wait(device)
    before = parts.seconds()
    blocks = parts.blocks
    processor = time.process_time()
    wall = time.perf_counter()
    turn.take()
    wait(device)
    figures = turn.contestant.figures
    figures.wall.append(time.perf_counter() - wall)
    figures.processor.append(time.process_time() - processor)
    figures.blocks.append(parts.blocks - blocks)
    for part, seconds in parts.seconds().items():
        figures.parts.setdefault(part, []).append(seconds - before[part])


def count_operators(turn: Turn) -> None:
    """Take one more turn, its operators counted where they run: in the thread of its model's owner."""
    contestant = turn.contestant
    contestant.is_looked_at = contestant.name.startswith("peer")
    count = OperatorCount()
    if turn.lent:
        job = turn.lent

        def counted() -> None:
            with count:
                job()

        turn.owner.lend(counted)
    else:
        turn.owner.counting = count
        turn.take()
    contestant.counts = (count.calls, count.kernels)


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()
