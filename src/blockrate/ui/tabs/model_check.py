"""What the Model tab says of a model before anything is loaded: parts, sizes, licence, memory."""

import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from blockrate.config.base_model import model_paths, model_spec
from blockrate.config.plan import Plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError
from blockrate.models.families import FAMILIES
from blockrate.models.files import PARTS, lack_of, weight_files
from blockrate.models.module_table import modules
from blockrate.models.savings import Memory

TOY = "tiny-flux1"
_GATED = FAMILIES["flux1-dev"].repo


class Finding(NamedTuple):
    """One line of the check, for people."""

    kind: Literal["Fine", "Note", "Problem"]
    text: str


class Card(NamedTuple):
    """What the weights will lie on. ``total``: bytes of its memory."""

    text: str
    total: int


Checked = tuple[list[Finding], Memory | None, Card]


def check(question: tuple[TrainConfig | None, Plan | None]) -> Iterator[Checked]:
    """Look for a config's model on this computer, and what the memory is. It reads headers: for a thread."""
    config, plan = question
    card = card_of(config.train_device if config else None, nvidia_cards())
    yield _findings(config), plan.memory_bytes if plan else None, card


def method_change(method: str, destination: str) -> dict[str, str]:
    """Return the settings that go with a training method: a LoRA is one file, a fine-tune a folder."""
    name = destination.removesuffix(".safetensors")
    fine_tune = method == "FINE_TUNE"
    return {
        "training_method": method,
        "output_model_format": "DIFFUSERS" if fine_tune else "DIFFUSERS_LORA",
        "output_model_destination": name if fine_tune else f"{name}.safetensors",
    }


def card_of(device: str | None, cards: Sequence[Card]) -> Card:
    """Return what a config's ``train_device`` means on this computer."""
    kind, _, number = (device or "cuda").partition(":")
    index = int(number) if number.isdecimal() else 0
    if kind == "cuda" and index < len(cards):
        return cards[index]
    if kind != "cpu" and (platform.system(), platform.machine()) == ("Darwin", "arm64"):
        text = "Apple's GPU, which shares the computer's memory"
    else:
        text = (
            "Training on the CPU"
            if kind == "cpu"
            else "No NVIDIA card found: training on the CPU"
        )
    return Card(text, psutil.virtual_memory().total)


@cache
def nvidia_cards() -> tuple[Card, ...]:
    """Ask nvidia-smi, once. For a thread: it may take seconds."""
    command = [
        "nvidia-smi",
        "--query-gpu=name,memory.total",
        "--format=csv,noheader,nounits",
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True
        )
        rows = [line.rpartition(",") for line in done.stdout.splitlines()]
        return tuple(Card(name.strip(), int(size) * 2**20) for name, _, size in rows)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


def memory_finding(memory: Memory, card: Card) -> Finding:
    """Compare what a plan predicts with what there is."""
    need = sum(astuple(memory))
    share = f"Needs {need / 2**30:.1f} of {card.total / 2**30:.1f} GiB"
    if need > card.total:
        cure = "Choose smaller weights, an 8-bit optimizer or less resolution, or freeze the first blocks."
        return Finding("Problem", f"{share}, which is too much. {cure}")
    if need * 1.2 > card.total:
        return Finding("Note", f"{share}, and 10 to 20 % more: this is tight.")
    return Finding("Fine", f"{share}, and 10 to 20 % more.")


def _findings(config: TrainConfig | None) -> list[Finding]:
    try:
        unknown = [Finding("Note", "Checked when the settings of the model are right.")]
        return [_what(config), *_where(config)] if config else unknown
    except BlockrateError as error:
        return [Finding("Problem", str(error))]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        # an index or a folder made by no tool we know
        return [
            Finding(
                "Problem",
                f"{config and config.base_model_name}: cannot be read: {error}",
            )
        ]


def _what(config: TrainConfig) -> Finding:
    spec = model_spec(config)
    titles = {
        name: family.title
        for family in FAMILIES.values()
        for name in (family.name, family.repo)
    }
    usual = f"FLUX.1 {'with' if spec.guidance_embeds else 'without'} guidance"
    name = titles.get(config.transformer.model_name or config.base_model_name, usual)
    size = sum(module.parameters for module in modules(spec))
    number = f"{size / 1e9:.1f} billion" if size > 1e9 else f"{size / 1e6:.1f} million"
    blocks = f"{spec.layout.double} double and {spec.layout.single} single blocks"
    return Finding("Fine", f"{name}: {blocks}, {number} parameters.")


def _where(config: TrainConfig) -> Iterator[Finding]:
    """Tell where the parts lie, how large they are, and which are missing."""
    hub, token = _hub()
    toy = Path(config.cache_dir) / "models" / TOY
    repos: list[str] = []

    def folder_of(name: str, parts: list[str]) -> Path:
        if name == TOY or Path(name).is_dir():
            return toy if name == TOY else Path(name)
        repos.append(FAMILIES[name].repo if name in FAMILIES else name)
        return _snapshot(hub, repos[-1])

    paths = {
        part: path
        for part, path in model_paths(config, folder_of).items()
        if not path.is_relative_to(toy)
    }
    if len(paths) < len(PARTS):
        yield Finding(
            "Fine",
            "A toy, made on the spot in seconds. It learns, but its images show nothing.",
        )
    lacks = {
        part: lack for part, path in paths.items() if (lack := lack_of(part, path))
    }
    coming = [part for part in lacks if paths[part].is_relative_to(hub)]
    missing = [
        f"{paths[part].parent}: {lack}"
        for part, lack in lacks.items()
        if part not in coming
    ]
    files = [
        file
        for part, path in paths.items()
        if part not in lacks
        for file in weight_files(part, path) or [path]
    ]
    if size := sum(file.stat().st_size for file in files if file.is_file()):
        yield Finding("Fine", f"{size / 1e9:,.1f} GB of weights are on this computer.")
    if missing:
        yield Finding(
            "Problem",
            f"Missing: {'; '.join(missing)}. Copy or download the model again, as a whole.",
        )
    if coming:
        names = ", ".join(dict.fromkeys(repos))
        what = "all of it" if len(coming) == len(PARTS) else ", ".join(coming)
        yield Finding(
            "Note",
            f"Not on this computer yet: {what}. The first start downloads it from {names}.",
        )
    if coming and _GATED in repos:
        yield _licence(token)


def _licence(token: Path) -> Finding:
    known = "HF_TOKEN" in os.environ or token.is_file()
    login = (
        "You are logged in."
        if known
        else "No login was found here: log in by `hf auth login`, or set HF_TOKEN."
    )
    text = f"{_GATED} needs its licence accepted, once, at https://huggingface.co/{_GATED}. {login}"
    return Finding("Note" if known else "Problem", text)


def _hub() -> tuple[Path, Path]:
    """Return where the hub's client keeps models and the login, by its own rules."""
    seen = os.environ.get
    home = seen("HF_HOME") or os.path.join(
        seen("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    places = (
        seen("HF_HUB_CACHE") or os.path.join(home, "hub"),
        seen("HF_TOKEN_PATH") or os.path.join(home, "token"),
    )
    return Path(os.path.expanduser(places[0])), Path(os.path.expanduser(places[1]))


def _snapshot(hub: Path, repo: str) -> Path:
    """Return the folder of the newest snapshot of a hub model, which need not be there."""
    place = hub / f"models--{repo.replace('/', '--')}"
    revision = "none"
    with suppress(OSError, ValueError):
        revision = (place / "refs" / "main").read_text("utf-8").strip()
    return place / "snapshots" / revision
