"""From folders of images to cached tensors: the encoders come, work and leave before the transformer arrives."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from blockrate.config.base_model import caption_tokens
from blockrate.config.parts import Concept, Sample
from blockrate.config.train_config import TrainConfig
from blockrate.engine.compiling import compile_warning
from blockrate.engine.data.batches import StepOrder, TrainingExample, validation_batches
from blockrate.engine.data.cache import Batch, Cache, ImageEncoder, PromptEncoder
from blockrate.engine.data.concepts import Item, find_items
from blockrate.engine.data.noised import NoisedBatch, noised
from blockrate.engine.full_memory import named_if_full
from blockrate.engine.models.common import ModelFiles
from blockrate.engine.models.locate import image_identity, locate, prompt_identity
from blockrate.engine.models.sample import EncodedPrompt
from blockrate.models.families import conditioning_of
from blockrate.run.events import EventLog, Phase, Warned
from blockrate.run.folder import StopFlag


@dataclass
class Data:
    """What a run learns from and is measured on, all of it on disk."""

    files: ModelFiles
    order: StepOrder
    cache: Cache
    validation: list[list[TrainingExample]]
    prompts: list[EncodedPrompt]
    fingerprint: str  # of the data set: another one has another
    device: torch.device

    def step_batches(self, step: int) -> list[NoisedBatch]:
        """Return the micro-batches of a step with all that belongs to them, where the device copies from."""
        config = self.order.config
        batches = []
        for index, batch in enumerate(self.read(self.order.step_batches(step))):
            made = noised(batch, config, self.files.family, step=step, index=index)
            batches.append(made.pinned() if self.device.type == "cuda" else made)
        return batches

    def read(self, batches: Sequence[Sequence[TrainingExample]]) -> list[Batch]:
        """Return batches of examples as tensors."""
        return [self.cache.batch(examples) for examples in batches]


def prepare_data(
    config: TrainConfig,
    device: torch.device,
    log: EventLog,
    stop: StopFlag,
    *,
    check: Callable[[str], None],
) -> Data:
    """Check every image and caption, find the model's files, and cache latents and prompt embeddings.

    ``check``: is told the data set's fingerprint. Raises FileError or ConfigError before anything big is loaded,
    StopRequested when asked to stop.
    """
    loading = partial(_report_loading, log, stop)
    warn = partial(_warn, log)
    items = find_items(config, loading)
    fingerprint = _fingerprint(items, config.concepts)
    check(fingerprint)
    order = StepOrder(config, items)
    if warning := compile_warning(config, order.image_sizes):
        warn(warning)
    validation = validation_batches(config, items) if config.validation else []
    files = locate(config, loading, warn)
    stop.obey()
    cache = _cache(files, config)
    samples = [sample for sample in config.samples if sample.enabled]
    lengths: list[int] = []
    vae = _Vae(files, config, device)
    cache.fill(
        [*order.every_example(), *chain.from_iterable(validation)],
        load_image_encoder=vae.encoder,
        load_prompt_encoder=partial(_prompt_encoder, files, config, device, lengths),
        progress=partial(_report_caching, log),
        should_stop=lambda: stop.requested,
        prompts=_prompts(samples, files),
        warn=warn,
    )
    _warn_of_cut_captions(lengths, caption_tokens(config, files.spec), files, log)
    stop.obey()
    prompts = _encoded_prompts(samples, cache, vae, files.negative_prompt)
    return Data(files, order, cache, validation, prompts, fingerprint, device)


def _prompts(samples: Sequence[Sample], files: ModelFiles) -> list[str]:
    """Return every caption that samples need, with the one that they move away from."""
    prompts = [sample.prompt for sample in samples]
    if prompts and files.negative_prompt is not None:
        prompts.append(files.negative_prompt)
    return prompts


def _encoded_prompts(
    samples: Sequence[Sample], cache: Cache, vae: "_Vae", negative_prompt: str | None
) -> list[EncodedPrompt]:
    """Return what the prompts of samples became; the VAE that will draw them is looked at, too."""
    if not samples:
        return []
    vae.check()
    negative = None if negative_prompt is None else cache.prompt(negative_prompt)
    return [
        EncodedPrompt(sample, cache.prompt(sample.prompt), negative)
        for sample in samples
    ]


def _warn(log: EventLog, message: str) -> None:
    log.write(Warned("data", message), step=log.step)


def _report_loading(log: EventLog, stop: StopFlag, done: int, total: int) -> None:
    stop.obey()
    log.write(Phase("loading", done, total), step=log.step)


def _report_caching(log: EventLog, done: int, total: int) -> None:
    log.write(Phase("caching", done, total), step=log.step)


def _fingerprint(items: Sequence[Item], concepts: Sequence[Concept]) -> str:
    """Return a hash of every image, caption and setting of concepts that order or content of the steps hang on."""
    rows = [(item.name, item.sha256, item.concept, item.captions) for item in items]
    # the form of captions is in the captions; runs from before it was a setting go on
    left_out: Any = {"path": True, "name": True, "text": {"caption_form": True}}
    settings = [concept.model_dump(exclude=left_out) for concept in concepts]
    return hashlib.sha256(json.dumps([rows, settings]).encode()).hexdigest()


def _cache(files: ModelFiles, config: TrainConfig) -> Cache:
    return Cache(
        Path(config.cache_dir),
        image_identity=image_identity(files, config),
        prompt_identity=prompt_identity(files, config),
        conditioning=conditioning_of(files.spec.architecture),
        latent_pixels=files.spec.facts["latent_pixels"],
    )


class _Vae:
    """Loads the VAE when it is asked for, and knows whether it was: loading is what checks it."""

    def __init__(
        self, files: ModelFiles, config: TrainConfig, device: torch.device
    ) -> None:
        self.files = files
        self.weight_dtype = config.vae.weight_dtype
        self.device = device
        self._named = partial(named_if_full, "encoding images", config)
        self._is_whole = False

    def encoder(self) -> ImageEncoder:
        """Return what makes latents of images."""
        family = self.files.family
        folder = self.files.parts["vae"]
        with self._named():
            vae = family.load_vae(
                folder, weight_dtype=self.weight_dtype, device=self.device
            )
        self._is_whole = True

        def encode(images: torch.Tensor) -> torch.Tensor:
            with self._named():
                return family.encode_images(vae, images)

        return encode

    def check(self) -> None:
        """Refuse a VAE that is not whole, if it was not loaded yet: at the first sample it would be late."""
        if not self._is_whole:
            self.encoder()


def _prompt_encoder(
    files: ModelFiles,
    config: TrainConfig,
    device: torch.device,
    lengths: list[int],
) -> PromptEncoder:
    """``lengths`` gets the tokens of every prompt that is encoded."""
    family = files.family
    named = partial(named_if_full, "encoding captions", config)
    with named():
        encoders = family.load_text_encoders(files, config, device)

    def encode(prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        lengths.extend(family.prompt_lengths(encoders, prompts))
        with named():
            return family.encode_prompts(encoders, prompts)

    return encode


def _warn_of_cut_captions(
    lengths: Sequence[int], most: int, files: ModelFiles, log: EventLog
) -> None:
    cut = [length for length in lengths if length > most]
    if not cut:
        return
    setting = files.spec.facts["caption_tokens"]
    cure = "the model takes no more"
    if isinstance(setting, str):
        cure = f"raise {setting}, up to 512"
    told = f"{len(cut)} captions are cut at {most} tokens, the longest has {max(cut)}"
    _warn(log, f"{told}: {cure}")
