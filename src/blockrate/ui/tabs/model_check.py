"""What the Model tab says of a model before anything is loaded: parts, sizes, licence, memory."""

import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple

from blockrate.config.base_model import (
    model_paths,
    model_spec,
    model_title,
    names_of_models,
    refuse_variant,
    text_encoders,
)
from blockrate.config.plan import Plan
from blockrate.config.room import (
    before_training,
    cards_of,
    plan_here,
)
from blockrate.config.step_time import time_text
from blockrate.config.train_config import FOLDER, TrainConfig
from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.core.units import share_text, size_text
from blockrate.models.cards import SLACK, Card, cards_here, chosen_card
from blockrate.models.families import FAMILIES, TransformerSpec, is_own, is_toy
from blockrate.models.files import folder_here
from blockrate.models.hub import (
    downloads_folder,
    is_gated,
    is_logged_in,
    repo_of,
    snapshot_folder,
)
from blockrate.models.module_table import modules
from blockrate.models.part_files import lack_of, weight_files
from blockrate.models.savings import Memory
from blockrate.run.launch import destination_note
from blockrate.run.main_memory import MainMemory, cure, main_memory, taken_text
from blockrate.run.places import PLACES, Source, place
from blockrate.run.results import Results
from blockrate.ui.parts.labels import in_labels, sentence

_KEPT = 30.0  # seconds
_asking = Lock()


_SUFFIX = ".safetensors"


class Finding(NamedTuple):
    """One line of the check, for people. ``choices``: the values of a field that answer, where it is a question."""

    kind: Literal["Fine", "Note", "Problem"]
    text: str
    field: str = ""
    choices: tuple[str, ...] = ()


class Device(NamedTuple):
    """What the weights will lie on. ``total``: bytes of its memory; ``free``: of them, when they were asked for.

    Both are 0 where only the training knows them. ``card``: what it is called, if that memory is a card's.
    """

    text: str
    total: int
    free: int
    card: str = ""


class Report(NamedTuple):
    """What the check has found. ``memory``: what the plan needs, None without a plan; ``main``: of main memory."""

    findings: list[Finding]
    memory: Memory | None
    card: Device
    main: Finding | None = None


def check(
    config: TrainConfig | None, plan: Plan | None, source: Source | None = None
) -> Report:
    """Look for a config's model on this computer, what the memory is, and where its run is. It reads: for a thread."""
    cards = nvidia_cards()
    card = device_for(config, cards)
    findings = _findings(config)
    memory = None
    main = None
    if config and plan:
        here = plan_here(config, plan, cards_of(config, cards))
        memory = here.memory_bytes
        main = main_memory_finding(config, here, main_memory())
        findings += _encoding(config, card)
        findings += _time(config, plan)
    if config and source:
        findings += _places(config, source)
    return Report(findings, memory, card, main)


def _encoding(config: TrainConfig, device: Device) -> Iterator[Finding]:
    """Say that text encoders or the VAE find no room while captions and images are encoded, where that is so."""
    if not device.total:
        return
    name = device.card or "this computer"
    card = Card(name, device.total, device.free, rate=0.0)
    for one in before_training(config, card, on_card=bool(device.card)):
        words = in_labels(one.text, text_encoders(config, model_spec(config)))
        is_too_much = one.needed > device.total
        yield Finding("Problem" if is_too_much else "Note", f"{sentence(words)}.")


def _time(config: TrainConfig, plan: Plan) -> Iterator[Finding]:
    """Say how long a step takes on the card here, if there is one that is known, and the run takes no more."""
    card = chosen_card(config.train_device, nvidia_cards())
    told = time_text(config, plan, card) if card and not config.multi_gpu else ""
    if told:
        yield Finding("Fine", f"{sentence(told)}.")


def _places(config: TrainConfig, source: Source) -> Iterator[Finding]:
    """Say where a run is and writes, and what is there."""
    placed = place(config, source)
    folder, result = (getattr(placed.config, path) for path in PLACES)
    if not placed.chosen:
        yield Finding("Fine", f"Trains in {folder}, and writes {result}.")
    results = Results(placed.run.events_file)
    try:
        note = destination_note(placed.config, results)
    except BlockrateError as error:
        yield Finding("Problem", in_labels(str(error)))
        return
    for text in filter(None, (placed.note, note)):
        yield Finding("Note", sentence(text))


def method_change(method: str, destination: str) -> dict[str, str]:
    """Return the settings that go with a training method: a LoRA is one file, a fine-tune a folder."""
    form = FOLDER if method == "FINE_TUNE" else "DIFFUSERS_LORA"
    name = destination.removesuffix(_SUFFIX)
    return {
        "training_method": method,
        "output_model_format": form,
        "output_model_destination": name if form == FOLDER else name + _SUFFIX,
    }


def form_change(form: str, destination: str) -> dict[str, str]:
    """Return the settings that go with a form of the result: the name of a folder, or that of a file."""
    name = destination.removesuffix(_SUFFIX)
    wanted = name if form == FOLDER else name + _SUFFIX
    change = {"output_model_format": form}
    if wanted != destination:
        change["output_model_destination"] = wanted
    return change


def device_for(config: TrainConfig | None, cards: Sequence[Card]) -> Device:
    """Return what a config trains on in this computer; of several cards the fullest, for each holds as much."""
    if config and config.multi_gpu and (several := cards_of(config, cards)):
        one = min(several, key=lambda card: card.free)
        text = f"{one.name} has least free of {len(several)}"
        return Device(text, one.total, one.free, one.name)
    return device_of(config.train_device if config else None, cards)


def device_of(device: str | None, cards: Sequence[Card]) -> Device:
    """Return what a config's ``train_device`` means on this computer."""
    card = chosen_card(device, cards)
    if card:
        return Device(card.name, card.total, card.free, card.name)
    text = "No NVIDIA card found: training on the CPU"
    if (platform.system(), platform.machine()) == ("Darwin", "arm64"):
        text = "Apple's GPU, which shares the computer's memory"
    if device == "cpu":
        text = "Training on the CPU"
    elif "+rocm" in version("torch"):
        return Device(
            "An AMD card, of which only the training knows what is free", 0, 0
        )
    return Device(text, *main_memory())


def nvidia_cards() -> tuple[Card, ...]:
    """Return the cards, asked for within the last half minute. For a thread: it may take seconds."""
    # who asks meanwhile waits for the one answer
    with _asking:
        return _cards_in(int(time.monotonic() // _KEPT))


def forget_cards() -> None:
    """Ask anew at the next time."""
    _cards_in.cache_clear()


@lru_cache(maxsize=1)
def _cards_in(_period: int) -> tuple[Card, ...]:
    return cards_here()


def memory_finding(memory: Memory, card: Device) -> Finding:
    """Compare what a plan predicts with what there is."""
    need = sum(astuple(memory))
    if not card.total:
        told = "The training says when it starts whether that is free."
        return Finding("Note", f"Needs {size_text(need)}, and up to 10 % more. {told}")
    share = f"Needs {share_text(need, card.total)}"
    if need > card.total:
        cure = "Choose smaller weights, an 8-bit optimizer or less resolution, or freeze the first blocks."
        return Finding("Problem", f"{share}, which is too much. {cure}")
    if need * SLACK > card.total:
        return Finding("Note", f"{share}, and up to 10 % more: this is tight.")
    if need * SLACK > card.free:
        used = f"Other programs have taken some of it: {size_text(card.free)} are free now."
        return Finding("Note", f"{share}, and up to 10 % more. {used}")
    return Finding("Fine", f"{share}, and up to 10 % more.")


def main_memory_finding(config: TrainConfig, plan: Plan, memory: MainMemory) -> Finding:
    """Compare the main memory that a plan predicts with what this computer has."""
    takes = f"Takes {taken_text(plan)}, of {size_text(memory.total)} in this computer"
    if plan.host_bytes > memory.total:
        less = in_labels(sentence(cure(config, plan)))
        return Finding("Problem", f"{takes}, which is too much. {less}.")
    if plan.host_bytes > memory.free:
        used = f"Other programs have taken some of it: {size_text(memory.free)} are free now."
        return Finding("Note", f"{takes}. {used}")
    return Finding("Fine", f"{takes}.")


def _findings(config: TrainConfig | None) -> list[Finding]:
    if config is None:
        return [Finding("Note", "Checked when the settings of the model are right.")]
    try:
        spec = model_spec(config)
        return [_what(config, spec), *_question(config, spec), *_where(config, spec)]
    except BlockrateError as error:
        return [Finding("Problem", in_labels(str(error)))]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        # an index or a folder made by no tool we know
        problem = f"{config.base_model_name}: cannot be read: {error}"
        return [Finding("Problem", problem)]


def _what(config: TrainConfig, spec: TransformerSpec) -> Finding:
    size = sum(module.parameters for module in modules(spec))
    number = f"{size / 1e9:.1f} billion" if size > 1e9 else f"{size / 1e6:.1f} million"
    return Finding("Fine", f"{model_title(config, spec)}, {number} parameters.")


def _question(config: TrainConfig, spec: TransformerSpec) -> Iterator[Finding]:
    """Ask what only the user can know of the model."""
    try:
        refuse_variant(config, spec)
    except ConfigError as error:
        yield Finding("Problem", in_labels(str(error)), error.where, error.choices)


def _where(config: TrainConfig, spec: TransformerSpec) -> Iterator[Finding]:
    """Tell where the parts lie, how large they are, and which are missing."""
    repos: list[str] = []

    def folder_of(name: str, _parts: list[str]) -> Path:
        folder = folder_here(name, config.cache_dir)
        if folder:
            return folder
        repos.append(repo_of(name))
        return snapshot_folder(repos[-1])

    every = model_paths(config, spec, folder_of)
    for name in sorted(filter(is_own, names_of_models(config))):
        yield Finding("Fine", FAMILIES[name].about)
    paths = {part: path for part, path in every.items() if not _of_toy(path, config)}
    lacks = {part: lack_of(part, path) for part, path in paths.items()}
    yield from _size([(part, paths[part]) for part in paths if not lacks[part]])
    coming = []
    missing = []
    for part, lack in lacks.items():
        if lack and paths[part].is_relative_to(downloads_folder()):
            coming.append(part)
        elif lack:
            missing.append(f"{paths[part].parent}: {lack}")
    if missing:
        cure = "Copy or download the model again, as a whole."
        yield Finding("Problem", f"Missing: {'; '.join(missing)}. {cure}")
    if coming:
        what = "all of it" if len(coming) == len(every) else ", ".join(coming)
        yield from _coming(what, list(dict.fromkeys(repos)))


def _of_toy(path: Path, config: TrainConfig) -> bool:
    toys = [folder_here(name, config.cache_dir) for name in FAMILIES if is_toy(name)]
    return any(toy and path.is_relative_to(toy) for toy in toys)


def _size(there: Sequence[tuple[str, Path]]) -> Iterator[Finding]:
    """Tell how large the parts are that are there, if any has a size."""
    size = 0
    for part, path in there:
        for file in weight_files(part, path) or [path]:
            if file.is_file():
                size += file.stat().st_size
    if size:
        text = f"{size_text(size)} of weights are on this computer."
        yield Finding("Fine", text)


def _coming(what: str, repos: Sequence[str]) -> Iterator[Finding]:
    """Tell what the first start downloads, and whose licence that asks for."""
    text = f"Not on this computer yet: {what}. The first start downloads it from "
    yield Finding("Note", f"{text}{', '.join(repos)}.")
    logged_in = is_logged_in()
    login = "No login was found here: log in with Hub login, below the models, by `hf auth login`, or set HF_TOKEN."
    if logged_in:
        login = "You are logged in."
    for repo in filter(is_gated, repos):
        licence = f"{repo} needs its licence accepted, once, at https://huggingface.co/{repo}."
        yield Finding("Note" if logged_in else "Problem", f"{licence} {login}")
