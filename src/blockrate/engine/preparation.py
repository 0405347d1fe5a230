"""From folders of images to cached tensors: the encoders come, work and leave before the transformer arrives."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from blockrate.config.base_model import caption_tokens
from blockrate.config.partners import asks_for_masks
from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.dataset.headers import quiet_pillow
from blockrate.engine import ranks
from blockrate.engine.compiling import compile_warning
from blockrate.engine.data.batches import StepOrder, TrainingExample, validation_batches
from blockrate.engine.data.cache import Batch, Cache, ImageEncoder, PromptEncoder
from blockrate.engine.data.concepts import Item, find_items
from blockrate.engine.data.dealing import Piece, share
from blockrate.engine.data.noised import NoisedBatch, noised
from blockrate.engine.data.sample_pictures import SamplePictures, sample_pictures
from blockrate.engine.full_memory import named_if_full
from blockrate.engine.models.common import ModelFiles
from blockrate.engine.models.locate import image_identity, locate, prompt_identity
from blockrate.engine.models.sample import EncodedPrompt
from blockrate.engine.twins import Twin, find_twins
from blockrate.engine.world import World, world
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
    world: World
    twins: Mapping[str, Twin] = field(default_factory=dict)  # by the name in samples

    def step_batches(self, step: int) -> list[NoisedBatch]:
        """Return this rank's micro-batches of a step with all that belongs to them, where the device copies from.

        The first names the images of the whole step, for messages: what is bad in one is bad for all.
        """
        batches = self.order.step_batches(step)
        every_file = [str(item.item.path) for batch in batches for item in batch]
        made: list[NoisedBatch] = []
        for piece in share(batches, self.world.rank, self.world.size):
            files = () if made else tuple(every_file)
            made.append(self._noised(piece, step, files))
        return made

    def _noised(self, piece: Piece, step: int, files: tuple[str, ...]) -> NoisedBatch:
        made = noised(
            self.cache.batch(piece.examples),
            self.order.config,
            self.files.family,
            step=step,
            index=piece.micro_batch,
            first=piece.first,
        )
        made = replace(made, share=piece.share, files=files)
        return made.pinned() if self.device.type == "cuda" else made

    def validation_pieces(self) -> list[tuple[Piece, Batch]]:
        """Return this rank's part of what the model is measured on, read."""
        pieces = share(self.validation, self.world.rank, self.world.size)
        return [(piece, self.cache.batch(piece.examples)) for piece in pieces]


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
    warn = partial(_warn, log)
    samples = _samples(config)
    # what one has looked at and fetched is there for the rest
    with ranks.first(stop):
        order, validation, fingerprint = _look_at_images(config, log, stop, check)
        files, twins = _find_models(config, log, stop)
    ranks.obey(stop)
    cache = _cache(files, config)
    lengths: list[int] = []
    vae = _Vae(files, config, device)
    fill = partial(
        cache.fill,
        [*order.every_example(), *chain.from_iterable(validation)],
        load_image_encoder=vae.encoder,
        load_prompt_encoder=partial(_prompt_encoder, files, config, device, lengths),
        progress=partial(_report_caching, log),
        should_stop=partial(ranks.is_asked, stop),
        prompts=_prompts(samples, files),
        pictures=chain.from_iterable(sample.every for sample in samples),
        warn=warn,
    )
    _fill_together(fill, stop)
    lengths = [length for some in ranks.gathered(lengths) for length in some]
    _warn_of_cut_captions(lengths, caption_tokens(config, files.spec), files, log)
    prompts = _encoded_prompts(samples, cache, vae, files.negative_prompt)
    found = (files, order, cache, validation, prompts)
    return Data(*found, fingerprint, device, world(), twins)


def encode_samples(
    config: TrainConfig,
    files: ModelFiles,
    device: torch.device,
    log: EventLog,
    stop: StopFlag,
) -> list[EncodedPrompt]:
    """Return what the prompts of a config's samples became; the encoders come, if there is anything new, and leave."""
    samples = _samples(config)
    cache = _cache(files, config)
    lengths: list[int] = []
    vae = _Vae(files, config, device)
    cache.fill(
        [],
        load_image_encoder=vae.encoder,
        load_prompt_encoder=partial(_prompt_encoder, files, config, device, lengths),
        progress=partial(_report_caching, log),
        should_stop=partial(ranks.is_asked, stop),
        prompts=_prompts(samples, files),
        pictures=chain.from_iterable(sample.every for sample in samples),
        warn=partial(_warn, log),
    )
    stop.obey()
    _warn_of_cut_captions(lengths, caption_tokens(config, files.spec), files, log)
    return _encoded_prompts(samples, cache, vae, files.negative_prompt)


def _find_models(
    config: TrainConfig, log: EventLog, stop: StopFlag
) -> tuple[ModelFiles, dict[str, Twin]]:
    """Return the model that trains, and by name the twins that samples are drawn by."""
    progress = partial(_report_loading, log, stop)
    warn = partial(_warn, log)
    files = locate(config, progress, warn)
    return files, find_twins(config, files, progress=progress, warn=warn)


def _look_at_images(
    config: TrainConfig, log: EventLog, stop: StopFlag, check: Callable[[str], None]
) -> tuple[StepOrder, list[list[TrainingExample]], str]:
    """Return the order of the images, the batches of validation, and the fingerprint of the data set."""
    items = find_items(config, partial(_report_loading, log, stop))
    fingerprint = _fingerprint(items, config.concepts)
    check(fingerprint)
    order = StepOrder(config, items)
    if warning := compile_warning(config, order.image_sizes):
        _warn(log, warning)
    validation = validation_batches(config, items) if config.validation else []
    return order, validation, fingerprint


def _fill_together(fill: Callable[..., None], stop: StopFlag) -> None:
    """Fill the cache, each rank its share; what another machine has written to a disk of its own, each once more."""
    here = world()

    def deal(missing: list[Any]) -> list[Any]:
        # not before all have seen what is missing
        ranks.obey(stop)
        return missing[here.rank :: here.size]

    if here.is_many:
        fill(deal=deal)
        ranks.obey(stop)
    fill()
    ranks.obey(stop)


def _samples(config: TrainConfig) -> list[SamplePictures]:
    """Return the samples to draw, with the images that they are made from."""
    masked = asks_for_masks(config)
    samples = [sample for sample in config.samples if sample.enabled]
    with quiet_pillow():
        return [sample_pictures(sample, masked=masked) for sample in samples]


def _prompts(samples: Sequence[SamplePictures], files: ModelFiles) -> list[str]:
    """Return every caption that samples need, with the one that they move away from."""
    prompts = [made_from.sample.prompt for made_from in samples]
    if prompts and files.negative_prompt is not None:
        prompts.append(files.negative_prompt)
    return prompts


def _encoded_prompts(
    samples: Sequence[SamplePictures],
    cache: Cache,
    vae: "_Vae",
    negative_prompt: str | None,
) -> list[EncodedPrompt]:
    """Return what the prompts of samples became; the VAE that will draw them is looked at, too."""
    if not samples:
        return []
    vae.check()
    prompts = []
    for made_from in samples:
        sample = made_from.sample
        images = cache.beside(made_from.references, made_from.masked)
        negative = None
        # a distilled twin moves away from nothing
        if negative_prompt is not None and not sample.preview:
            # the images stay: away from the words alone
            negative = {**cache.prompt(negative_prompt), **images}
        conditioning = {**cache.prompt(sample.prompt), **images}
        prompts.append(EncodedPrompt(sample, conditioning, negative))
    return prompts


def _warn(log: EventLog, message: str) -> None:
    log.write(Warned("data", message), step=log.step)


def _report_loading(log: EventLog, stop: StopFlag, done: int, total: int) -> None:
    if ranks.is_asked(stop):
        stop.obey()
    log.write(Phase("loading", done, total), step=log.step)


def _report_caching(log: EventLog, done: int, total: int) -> None:
    log.write(Phase("caching", done, total), step=log.step)


def _fingerprint(items: Sequence[Item], concepts: Sequence[Concept]) -> str:
    """Return a hash of every image, caption and setting of concepts that order or content of the steps hang on."""
    rows: list[tuple[object, ...]] = []
    for item in items:
        # of files that runs from before there were any do not have
        partners = [partner.facts.sha256 for partner in item.partners]
        row = (item.name, item.sha256, item.concept, item.captions)
        rows.append((*row, partners) if partners else row)
    # the form of captions is in the captions; runs from before it was a setting go on
    left_out: Any = {
        **dict.fromkeys(("path", "name"), True),
        "role": True,
        **dict.fromkeys(("references", "masks"), True),
        "text": {"caption_form": True},
    }
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
