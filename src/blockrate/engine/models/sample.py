"""Images drawn by the model in training, with fixed seeds, so that one step compares with another."""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from blockrate.config.parts import Sample
from blockrate.engine.memory import release
from blockrate.engine.models.common import Conditioning, ModelFiles
from blockrate.run.durable import atomic_write, make_folder


@dataclass(frozen=True)
class EncodedPrompt:
    """A sample to draw, what its prompt became, and what it moves away from, if the model needs that."""

    sample: Sample
    conditioning: Conditioning
    negative: Conditioning | None = None


Fault = Literal["latents", "pixels", "one colour"]


class Spoilt(NamedTuple):
    """A sample that is no picture, by its number among the prompts, and where it went bad."""

    number: int
    what: Fault


@torch.no_grad()
def sample_images(
    files: ModelFiles,
    transformer: Any,
    load_vae: Callable[[], Any],
    prompts: Sequence[EncodedPrompt],
    *,
    folder: Path,
    step: int,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    should_stop: Callable[[], bool] = lambda: False,
    tell_spoilt: Callable[[Spoilt], object] = lambda spoilt: None,
    numbers: Sequence[int] | None = None,
    writes: bool = True,
) -> list[Path]:
    """Draw every prompt with diffusers' own pipeline and return the PNG files, their prompt and seed inside.

    The transformer is in evaluation mode, the VAE comes after the last denoising step and leaves at the end.
    ``precision``: what the transformer computes in; the VAE has its own. ``should_stop`` is asked after each denoising
    step; if so, there are no images. ``tell_spoilt``: is told of each sample that is no picture; there is no file of
    it. ``numbers``: of the prompts in files' names, 0, 1, ... by default. ``writes``: whether this process decodes and
    writes what several have drawn together. Raises WriteError.
    """
    if not prompts:
        return []
    with precision():
        latents = [
            _drawn(files, transformer, prompt, should_stop) for prompt in prompts
        ]
    if should_stop() or not writes:
        return []
    numbers = numbers or range(len(prompts))
    whole = _finite(latents, numbers, tell_spoilt)
    if not whole:
        return []
    vae = load_vae()
    make_folder(folder)
    images = []
    for place in whole:
        prompt = prompts[place]
        number = numbers[place]
        image = files.family.decode_latents(vae, latents[place])[0]
        if fault := _fault(image):
            tell_spoilt(Spoilt(number, fault))
            continue
        file = folder / _name(prompt.sample, number, step)
        atomic_write(file, _png(image, prompt.sample, step))
        images.append(file)
    del vae
    release()
    return images


@torch.no_grad()
def draw_image(
    files: ModelFiles,
    transformer: Any,
    load_vae: Callable[[], Any],
    prompt: EncodedPrompt,
    *,
    precision: Callable[[], AbstractContextManager[object]],
    should_stop: Callable[[], bool],
) -> Tensor | Fault | None:
    """Return one image (3, H, W) in -1..1 as ``sample_images`` draws it, or why it is no picture; None after a stop."""
    with precision():
        latents = _drawn(files, transformer, prompt, should_stop)
    if should_stop():
        return None
    if not latents.isfinite().all():
        return "latents"
    image = files.family.decode_latents(load_vae(), latents)[0]
    return _fault(image) or image


def _drawn(
    files: ModelFiles,
    transformer: Any,
    prompt: EncodedPrompt,
    should_stop: Callable[[], bool],
) -> Tensor:
    return files.family.denoise(
        transformer,
        prompt.sample,
        prompt.conditioning,
        negative=prompt.negative,
        files=files,
        should_stop=should_stop,
    )


def _name(sample: Sample, number: int, step: int) -> str:
    return f"step-{step:08d}-{number}-{sample.file_words}.png"


def _finite(
    latents: Sequence[Tensor],
    numbers: Sequence[int],
    tell_spoilt: Callable[[Spoilt], object],
) -> list[int]:
    """Return the places of those latents that are numbers; the others are told."""
    whole = []
    for place, (number, drawn) in enumerate(zip(numbers, latents, strict=True)):
        if drawn.isfinite().all():
            whole.append(place)
        else:
            tell_spoilt(Spoilt(number, "latents"))
    return whole


def _fault(image: Tensor) -> Fault | None:
    """Return why an image (3, H, W) is no picture, if it is none."""
    if not image.isfinite().all():
        return "pixels"
    pixels = _pixels(image)
    return "one colour" if bool((pixels == pixels[:1, :1]).all()) else None


def _pixels(image: Tensor) -> Tensor:
    """Return an image (3, H, W) in -1..1 as bytes (H, W, 3)."""
    return ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu()


def _png(image: Tensor, sample: Sample, step: int) -> bytes:
    return png_of(image, sample, {"training_step": str(step)})


def png_of(image: Tensor, sample: Sample, more: Mapping[str, str]) -> bytes:
    """PNG of an image (3, H, W) in -1..1, with what drew it as text, and ``more`` of that."""
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", sample.prompt)
    text.add_text("seed", str(sample.seed))
    text.add_text("diffusion_steps", str(sample.diffusion_steps))
    text.add_text("cfg_scale", str(sample.cfg_scale))
    for name, value in more.items():
        text.add_text(name, value)
    Image.fromarray(_pixels(image).numpy()).save(
        stream := io.BytesIO(), "PNG", pnginfo=text
    )
    return stream.getvalue()
