"""Makes the miniature: ``python studies/miniature/make.py``, with blockrate and resvg-py installed.

Pictures from npm, then a flow model that ``blockrate train`` trains beside the VAE and the text encoders that come with
blockrate; ``--from-nothing`` trains these anew as well. ``--smoke`` goes through everything in little time.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawing import (
    distances,
    draw,
    examine,
    flow_loss,
    load_pipeline,
    write_facts,
)
from first_weights import first_transformer, write_first_weights
from options import read_options
from pictures import (
    BASE,
    WANTED,
    Names,
    caption,
    load_pictures,
    prepare_pictures,
)
from rate import RESERVE, Choice, fastest, unmeasured
from training import (
    Settings,
    facts_of,
    fill_cache,
    mean_loss_since,
    train,
    write_config,
)
from vae import all_pictures, normalise, psnr, train_vae

import blockrate

SHIPPED = Path(blockrate.__file__).with_name("miniature")
START_SECONDS = 15  # from the engine's start to its first step


@dataclass
class Making:
    """What all phases share: where things lie, what was asked for, and what is known so far."""

    options: argparse.Namespace
    work: Path
    out: Path
    device: torch.device
    facts: dict[str, Any] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)  # exports that were already used

    def note(self, **facts: Any) -> None:
        """Keep facts, on disk too."""
        self.facts.update(facts)
        self.out.mkdir(parents=True, exist_ok=True)
        write_facts(self.out / "facts.json", self.facts)

    def note_export(self, name: str, facts: dict[str, float]) -> None:
        """Keep what was measured of an export, beside the step it was made after and the training loss before it."""
        run = self.work / "run"
        stated = name.removeprefix("transformer-step-")
        step = int(stated) if stated.isdigit() else int(facts_of(run)["steps"])
        curve = self.facts.setdefault("curve", [])
        before = curve[-1]["step"] if curve else 0
        training = mean_loss_since(run, before, step)
        row = {"step": step, "training": training, **facts}
        curve.append(row)
        print(row, flush=True)
        self.note()

    def images(self) -> dict[str, np.ndarray]:
        """Return the base style's pictures by name."""
        return load_pictures(self.work, BASE)


def main() -> None:
    """Go through all phases."""
    options = read_options()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    making = Making(options, options.work.absolute(), options.out.absolute(), device)
    torch.backends.cudnn.benchmark = True
    begun = time.monotonic()
    packages = options.packages or making.work / "packages"
    names = prepare_pictures(
        making.work, packages, pixels=options.pixels, known=options.known
    )
    known = len(names.known)
    making.note(pixels=options.pixels, known=known, pictures_seconds=_since(begun))
    shutil.rmtree(making.work / "model", ignore_errors=True)
    if options.from_nothing:
        make_model_folder(making, names)
    else:
        take_model_folder(making)
    fill_cache(making.work, resolution=str(options.pixels))
    train_flow(making, names)
    making.note(seconds=_since(begun))
    told = {name: fact for name, fact in making.facts.items() if name != "curve"}
    print("done:", json.dumps(told), flush=True)


def make_model_folder(making: Making, names: Names) -> None:
    """Train the VAE and write the folder with the flow model's first weights."""
    options = making.options
    begun = time.monotonic()
    vae = train_vae(
        all_pictures(making.work),
        making.device,
        channels=options.channels,
        seconds=options.vae_seconds,
        batch=options.vae_batch,
        report=lambda facts: print("vae:", facts, flush=True),
    )
    images = making.images()
    stack = np.stack([images[name] for name in names.known])
    known = torch.from_numpy(stack).permute(0, 3, 1, 2)
    latents = normalise(vae, known)
    quality = {"vae_psnr": round(psnr(vae, known[::4]), 2), **latents}
    print("vae:", quality, flush=True)
    making.note(**quality, vae_seconds=_since(begun), vae_parameters=_count(vae))
    vocabulary = [caption(name) for name in images]
    parameters = write_first_weights(
        making.work / "model",
        vae,
        vocabulary,
        blocks=options.blocks,
        head_dim=options.head_dim,
    )
    if making.device.type == "cuda":
        torch.cuda.empty_cache()  # the engine is a process of its own
    making.note(transformer_parameters=parameters)


def take_model_folder(making: Making) -> None:
    """Go on from a model made before, or from first weights beside the shipped VAE and text encoders."""
    options = making.options
    folder = making.work / "model"
    if options.model:
        shutil.copytree(options.model, folder)
        return making.note(goes_on_from=options.model.name)
    without = shutil.ignore_patterns("transformer")
    shutil.copytree(SHIPPED, folder, ignore=without)
    transformer = first_transformer(options.blocks, options.head_dim)
    transformer.save_pretrained(folder / "transformer")
    making.note(transformer_parameters=_count(transformer))


def train_flow(making: Making, names: Names) -> None:
    """Train the flow model in the way that reaches the goal first; use each export on the way, and the last one."""
    options = making.options
    work = making.work
    begun = time.monotonic()
    resolution = str(options.pixels)
    settings = [{**each, "resolution": resolution} for each in options.choices]
    seconds = options.flow_seconds - min(START_SECONDS, options.flow_seconds / 4)
    if options.steps:
        choice = unmeasured(settings[0], seconds, options.steps)
    else:
        choice = fastest(work, settings, len(names.known))
    changes = flow_settings(choice, seconds, len(names.known), options.save_every)
    print(
        f"flow: {choice.settings}: {changes['epochs']} epochs in {seconds:.0f} s;"
        f" the goal needs {choice.needed:.0f} s",
        flush=True,
    )
    shutil.rmtree(work / "trained", ignore_errors=True)
    config = write_config(work, file=work / "miniature.json", **changes)
    train(config, lambda: use_exports(making, names))
    facts = facts_of(work / "run")
    making.note(
        flow_seconds=_since(begun),
        settings=choice.settings,
        views=round(facts["steps"] * choice.batch / len(names.known), 1),
        **facts,
    )
    use(making, names, work / "trained" / "transformer", thorough=True)


def flow_settings(
    choice: Choice, seconds: float, pictures: int, save_every: int
) -> Settings:
    """Return the recipe's changes: as many epochs as fit into the time, so that the rate's schedule ends with it."""
    steps = RESERVE * seconds / choice.seconds
    epochs = int(steps * choice.batch / pictures)
    guard = {
        "stop_training_after": max(1, int(seconds)),
        "stop_training_after_unit": "SECOND",
    }
    return {
        **choice.settings,
        "epochs": max(1, epochs),
        "transformer": guard,
        "save_every": save_every,
        "save_every_unit": "SECOND" if save_every else "NEVER",
    }


def use_exports(making: Making, names: Names) -> None:
    """Make a model of an export that is new, if there is one; a failure costs nothing but this."""
    folders = sorted((making.work / "trained").glob("transformer-step-*[0-9]"))
    for folder in folders[-1:]:
        if folder.name in making.seen:
            continue
        making.seen.add(folder.name)
        try:
            use(making, names, folder, thorough=False)
        except Exception as error:  # the run goes on; the next export comes
            reason = f"{type(error).__name__}: {error}"
            print(f"{folder.name} could not be used: {reason}", flush=True)


def use(making: Making, names: Names, transformer: Path, *, thorough: bool) -> None:
    """Write the whole model with this transformer to ``out``, and what it draws beside it."""
    write_model(making, transformer)
    model = making.work / "model"
    images = making.images()
    pipeline = load_pipeline(model, transformer, making.device)
    page, near = examine(pipeline, WANTED[: making.options.page], images)
    page.save(making.out / "page.png")
    losses = {
        kind: _loss(pipeline, chosen, images)
        for kind, chosen in (("known", names.known[::8]), ("unseen", names.unseen))
    }
    making.note_export(transformer.name, {**near, **losses})
    if thorough:
        known = names.known[:: making.options.stride]
        making.note(
            all_known=_measured(pipeline, known, images),
            unseen=_measured(pipeline, names.unseen, images),
        )


def write_model(making: Making, transformer: Path) -> None:
    """Write the pipeline in bfloat16 to ``out``/model, an older one replaced."""
    from diffusers import FluxPipeline, FluxTransformer2DModel

    half = torch.bfloat16
    trained = FluxTransformer2DModel.from_pretrained(transformer, dtype=half)
    pipeline = FluxPipeline.from_pretrained(
        making.work / "model", transformer=trained, dtype=half
    )
    new = making.out / "model.new"
    shutil.rmtree(new, ignore_errors=True)
    pipeline.save_pretrained(new)
    config = json.loads((new / "transformer" / "config.json").read_text())
    config.pop("_name_or_path", None)  # a folder of this machine
    (new / "transformer" / "config.json").write_text(json.dumps(config, indent=2))
    shutil.copy(making.work / "names.json", new)
    shutil.rmtree(making.out / "model", ignore_errors=True)
    new.rename(making.out / "model")


def _loss(pipeline: Any, names: list[str], images: dict[str, np.ndarray]) -> float:
    truth = np.stack([np.asarray(images[name]) for name in names])
    return round(flow_loss(pipeline, [caption(name) for name in names], truth), 4)


def _measured(
    pipeline: Any, names: list[str], images: dict[str, np.ndarray]
) -> dict[str, float]:
    truth = np.stack([np.asarray(images[name]) for name in names])
    words = [caption(name) for name in names]
    drawn = draw(pipeline, words, pixels=truth.shape[1])
    return distances(drawn, truth)


def _count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 1)


if __name__ == "__main__":
    # so that the engine ends with us
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
