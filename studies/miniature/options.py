"""What the maker is asked for, and what follows from the machine: times, batches, sizes."""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import torch
from first_weights import HEAD_DIM
from pictures import KNOWN
from training import Settings
from vae import CHANNELS


class Budget(NamedTuple):
    """What a machine is given: seconds, and how many pictures a step of the VAE takes."""

    vae_seconds: float
    flow_seconds: float
    vae_batch: int


BUDGETS = {"cpu": Budget(3600, 5400, 16), "gpu": Budget(90, 900, 64)}
SMOKE = Budget(8, 20, 4)
SMALL_BLOCKS = (1, 2)  # of a smoke test on a processor
SMALL_CHANNELS = (8, 8, 16, 16)


def read_options() -> argparse.Namespace:
    """Return the command line's options, the rest filled in from the budget."""
    options = _parser().parse_args()
    budget = BUDGETS[options.budget]
    options.blocks = (19, 38)
    options.channels = CHANNELS
    options.page = 36
    options.stride = 1
    if options.smoke:
        budget = SMOKE._replace(vae_batch=budget.vae_batch)
        options.known = min(options.known, 256)
        options.stride = 8
    if options.smoke and options.budget == "cpu":
        budget = SMOKE
        options.known = 36
        options.page = 6
        options.blocks = SMALL_BLOCKS
        options.channels = SMALL_CHANNELS
    options.vae_seconds = options.vae_seconds or budget.vae_seconds
    options.flow_seconds = options.flow_seconds or budget.flow_seconds
    options.vae_batch = budget.vae_batch
    options.choices = options.choices or _choices(options.budget, options.known)
    return options


def _choices(budget: str, known: int) -> list[Settings]:
    """Return what is worth measuring. On a GPU a step of all pictures takes little longer than one of a few."""
    if budget == "cpu":
        return [{"batch_size": min(64, known)}]
    return [{"batch_size": known // 2, "compile": True}, {"batch_size": known}]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Makes a small Flux that draws pictograms from words."
    )
    usual = "gpu" if torch.cuda.is_available() else "cpu"
    add = parser.add_argument
    add("--budget", choices=BUDGETS, default=usual, help="what sets times and batches")
    add(
        "--work",
        type=Path,
        default=Path("workspace/miniature"),
        help="pictures, cache, run",
    )
    add(
        "--out",
        type=Path,
        default=Path("models/miniature"),
        help="the model, its page, its facts",
    )
    add(
        "--packages",
        type=Path,
        help="folder with the three packages of npm; else they are fetched",
    )
    add(
        "--model",
        type=Path,
        help="go on from this model folder, with fresh moments",
    )
    add("--from-nothing", action="store_true", help="train a VAE first, take no model")
    add("--vae-seconds", type=float)
    add("--flow-seconds", type=float)
    add("--steps", type=int, help="train so many, with the first choice, unmeasured")
    add("--save-every", type=int, default=0, help="seconds from export to export")
    add("--known", type=int, default=KNOWN, help="how many names")
    add("--head-dim", type=int, default=HEAD_DIM, help="width of each of four heads")
    add("--choices", type=json.loads, help="settings to choose from, a JSON list")
    add(
        "--pixels",
        type=int,
        choices=(64, 128),
        default=64 if usual == "cpu" else 128,
        help="a side of a picture; 64 have a quarter of the image tokens",
    )
    add("--smoke", action="store_true", help="little of everything")
    return parser
