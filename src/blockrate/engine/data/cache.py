"""Latents and prompt embeddings on disk, each made once and found again by what it was made from."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from blockrate.core.errors import FileError
from blockrate.dataset.headers import quiet_pillow
from blockrate.engine.data.batches import TrainingExample
from blockrate.engine.data.entries import (
    Entry,
    Flaw,
    NoEntry,
    read_entry,
    write_entry,
)
from blockrate.engine.data.images import Picture, image_tensor, mask_tensor
from blockrate.engine.data.kept import KeptEntries, Tensors
from blockrate.engine.memory import release
from blockrate.engine.models.common import MASK, MASKED_IMAGE, reference_name
from blockrate.models.families import Conditioned

# (B, 3, H, W), -1..1 -> latents (B, C, h, w)
ImageEncoder = Callable[[torch.Tensor], torch.Tensor]
# -> by name, each with a first dimension for the batch
PromptEncoder = Callable[[list[str]], dict[str, torch.Tensor]]
LoadImage = Callable[[], ImageEncoder]
LoadPrompt = Callable[[], PromptEncoder]
In = TypeVar("In")
Out = TypeVar("Out")
Source = TypeVar("Source", Picture, str)
# raise it when the same key would hold something else: another way to cut, scale or encode
_VERSION = 1
_REASONS: dict[Flaw, str] = {
    "damaged": "damaged or in another's place",
    "unproven": "without a checksum, as an earlier version left them",
}


@dataclass(frozen=True)
class Batch:
    """What one forward pass needs. ``files`` names the images, for messages about this batch."""

    latents: torch.Tensor  # (B, C, h, w)
    conditioning: dict[str, torch.Tensor]  # by name, each (B, ...)
    loss_weights: torch.Tensor  # (B,)
    files: tuple[str, ...]


class CacheError(FileError):
    """An entry that the run has made is not there any more, or not what it was."""


@dataclass(frozen=True)
class Cache:
    """A folder of encoded crops and captions. The identities tell all that decides what an encoder gives."""

    folder: Path
    image_identity: str  # weights, precision
    prompt_identity: str  # weights, precision, token length
    conditioning: Mapping[str, Conditioned]  # what a caption becomes, by name
    latent_pixels: int  # pixels a side of one latent
    kept: KeptEntries = field(default_factory=KeptEntries, compare=False, repr=False)

    def fill(
        self,
        examples: Sequence[TrainingExample],
        *,
        load_image_encoder: LoadImage,
        load_prompt_encoder: LoadPrompt,
        progress: Callable[[int, int], None],
        should_stop: Callable[[], bool],
        prompts: Iterable[str] = (),
        pictures: Iterable[Picture] = (),
        warn: Callable[[str], None] = lambda message: None,
        deal: Callable[[list[Any]], list[Any]] = lambda missing: missing,
    ) -> None:
        """Make what is missing or damaged for the examples, further prompts and pictures, keeping each entry at once.

        An encoder is loaded only if something of its kind is missing, and let go before the next is loaded.
        ``warn`` is told of entries that are there and cannot be used. ``deal``: which of the missing ones of a kind are
        to be made here, where others make the rest meanwhile.
        """
        crops = self._different(examples, pictures)
        captions = dict.fromkeys(prompts)
        for example in examples:
            captions |= dict.fromkeys(example.captions.values())
        flaws = _Flaws()
        new_crops = flaws.found_in(crops, self._latents)
        new_texts = flaws.found_in(captions, self._conditioning)
        flaws.tell(self.folder, warn)
        total = len(crops) + len(captions)
        missing = len(new_crops) + len(new_texts)
        new_crops = deal(new_crops)
        new_texts = deal(new_texts)
        ours = len(new_crops) + len(new_texts)
        entries = self._make(
            new_crops, new_texts, load_image_encoder, load_prompt_encoder
        )
        with quiet_pillow(), torch.inference_mode():
            for made, entry in enumerate(entries, start=1):
                write_entry(entry)
                # as if all were as far as we are
                progress(total - missing + missing * made // ours, total)
                if should_stop():
                    return

    def _different(
        self, examples: Iterable[TrainingExample], pictures: Iterable[Picture]
    ) -> list[Picture]:
        """Return all pictures that are needed, of those with one entry one."""
        crops = {self._file(picture): picture for picture in pictures}
        for example in examples:
            crops |= {self._file(picture): picture for picture in example.pictures}
        return list(crops.values())

    def batch(self, examples: Sequence[TrainingExample]) -> Batch:
        """Return examples of one bucket as tensors. Raises ``CacheError`` if an entry was lost or damaged meanwhile."""
        latents = [self.picture(example.picture)["latents"] for example in examples]
        conditioning = self._batch_conditioning(examples)
        beside = [self._images_beside(example) for example in examples]
        for name in beside[0]:
            conditioning[name] = torch.stack([tensors[name] for tensors in beside])
        return Batch(
            latents=torch.stack(latents),
            conditioning=conditioning,
            loss_weights=torch.tensor(
                [example.item.loss_weight for example in examples]
            ),
            files=tuple(str(example.item.path) for example in examples),
        )

    def prompt(self, text: str) -> Tensors:
        """Return the conditioning, without a dimension for the batch, of a caption or prompt that was filled in."""
        with self._there(_caption_in_words(text)):
            return self._conditioning(text)

    def picture(self, picture: Picture) -> Tensors:
        """Return the latents of a picture that was filled in, (C, h, w), and with a mask that, (pixels, h, w)."""
        with self._there(str(picture.path)):
            return self._latents(picture)

    def beside(
        self, references: Sequence[Picture], masked: Picture | None
    ) -> dict[str, torch.Tensor]:
        """Return what references and a masked picture that were filled in are for the transformer, by name."""
        tensors = {
            reference_name(index): self.picture(reference)["latents"]
            for index, reference in enumerate(references)
        }
        if masked:
            entry = self.picture(masked)
            tensors |= {MASKED_IMAGE: entry["latents"], MASK: entry["mask"]}
        return tensors

    def _images_beside(self, example: TrainingExample) -> dict[str, torch.Tensor]:
        return self.beside(example.references, example.masked)

    def _batch_conditioning(
        self, examples: Sequence[TrainingExample]
    ) -> dict[str, torch.Tensor]:
        """Return what the captions became, each tensor from the caption of its own text encoder."""
        read: dict[str, Tensors] = {}
        for example in examples:
            for text in example.captions.values():
                if text not in read:
                    read[text] = self.prompt(text)
        conditioning = {}
        for name, row in self.conditioning.items():
            texts = [example.captions[row.encoder] for example in examples]
            conditioning[name] = torch.stack([read[text][name] for text in texts])
        return conditioning

    def _make(
        self,
        crops: list[Picture],
        texts: list[str],
        load_vae: LoadImage,
        load_text: LoadPrompt,
    ) -> Iterator[Entry]:
        """Encode one at a time, for an entry must not depend on what else was missing."""
        if crops:
            yield from self._make_latents(crops, load_vae())
            release()
        if texts:
            yield from self._make_conditioning(texts, load_text())
            release()

    def _make_latents(
        self, crops: list[Picture], encode: ImageEncoder
    ) -> Iterator[Entry]:
        images = prefetch(_pixels, crops)
        for picture, (image, mask) in zip(crops, images, strict=True):
            tensors = {"latents": encode(image[None])[0]}
            if mask is not None:
                folded = nn.functional.pixel_unshuffle(mask, self.latent_pixels)
                tensors["mask"] = folded.byte()
            source = str(picture.path)
            yield Entry(self._file(picture), self._key(picture), source, tensors)

    def _make_conditioning(
        self, texts: list[str], encode: PromptEncoder
    ) -> Iterator[Entry]:
        for text in texts:
            batch = encode([text])
            tensors = {name: batch[name][0] for name in self.conditioning}
            source = _caption_in_words(text)
            yield Entry(self._file(text), self._key(text), source, tensors)

    def _latents(self, picture: Picture) -> Tensors:
        """Return the latents of a picture, and its mask if it has one; raises ``NoEntry``."""
        left, top, right, bottom = picture.crop.box
        pixels = self.latent_pixels
        size = ((bottom - top) // pixels, (right - left) // pixels)
        names = ["latents", "mask"] if picture.mask else ["latents"]

        def read() -> Tensors:
            entry = self._read(picture, dict.fromkeys(names, 3))
            if any(tensor.shape[1:] != size for tensor in entry.values()):
                raise NoEntry("damaged")
            return entry

        return self.kept.get(self._key(picture), read)

    def _conditioning(self, text: str) -> Tensors:
        """Return what a caption became; raises ``NoEntry``."""
        dimensions = {name: row.dimensions for name, row in self.conditioning.items()}

        def read() -> Tensors:
            return self._read(text, dimensions)

        return self.kept.get(self._key(text), read)

    def _read(self, source: Picture | str, dimensions: Mapping[str, int]) -> Tensors:
        """Return the proven entry of a picture or a caption; raises ``NoEntry``."""
        return read_entry(self._file(source), self._key(source), dimensions)

    @contextmanager
    def _there(self, source: str) -> Iterator[None]:
        """Raise ``CacheError`` if there is no entry, for it was there when the run began."""
        try:
            yield
        except NoEntry:
            problem = f"the entry of {source} is missing or damaged"
            cure = "Start again: it is made anew, and the run goes on."
            raise CacheError(str(self.folder), problem, cure) from None

    def _file(self, source: Picture | str) -> Path:
        """Return where the latents of a picture, or the conditioning of a caption, are kept."""
        kind = "latents" if isinstance(source, Picture) else "prompts"
        key = self._key(source)
        # by two letters, because some file systems are slow with many files in one folder
        return self.folder / kind / key[:2] / f"{key[:40]}.safetensors"

    def _key(self, source: Picture | str) -> str:
        """Return a hash of all that decides what an entry holds."""
        if isinstance(source, Picture):
            kind = "latents"
            crop = astuple(source.crop)
            made_from: list[object] = [self.image_identity, source.sha256, crop]
            if source.mask:
                made_from.append(source.mask.facts.sha256)
        else:
            kind = "prompts"
            made_from = [self.prompt_identity, source]
        text = json.dumps([_VERSION, kind, *made_from])
        return hashlib.sha256(text.encode()).hexdigest()


class _Flaws:
    """Which entries there are that cannot be used, and why."""

    def __init__(self) -> None:
        self.sources: dict[Flaw, list[str]] = {}

    def found_in(
        self, sources: Iterable[Source], read: Callable[[Source], object]
    ) -> list[Source]:
        """Return those of which no entry can be used."""
        missing = []
        for source in sources:
            try:
                read(source)
            except NoEntry as no_entry:
                missing.append(source)
                self.sources.setdefault(no_entry.flaw, []).append(_in_words(source))
        return missing

    def tell(self, folder: Path, warn: Callable[[str], None]) -> None:
        """Say which are made anew though something is there, one line for each reason."""
        for flaw, reason in _REASONS.items():
            sources = self.sources.get(flaw, [])
            if sources:
                more = f" and {len(sources) - 2} more" if len(sources) > 2 else ""
                told = f"{', '.join(sources[:2])}{more}"
                count = (
                    "1 entry is" if len(sources) == 1 else f"{len(sources)} entries are"
                )
                warn(f"{folder}: {count} made anew, {reason}: {told}")


def prefetch(
    make: Callable[[In], Out], wanted: Iterable[In], *, ahead: int = 2
) -> Generator[Out, None, None]:
    """Yield ``make(one)`` for each, in order, made ahead by one thread; an error surfaces where its result would."""
    pending: deque[Future[Out]] = deque()
    thread = ThreadPoolExecutor(1)
    try:
        for one in wanted:
            pending.append(thread.submit(make, one))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # An error may leave this to the garbage collector, which runs at any moment: in the start of another thread
        # too, whose lock the end of this one waits for. So nobody waits here.
        thread.shutdown(wait=False, cancel_futures=True)


def _pixels(picture: Picture) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a picture (3, H, W), and its mask (1, H, W) if it has one, which is grey in the picture."""
    image = image_tensor(picture.path, picture.sha256, picture.crop)
    if not picture.mask:
        return image, None
    mask = mask_tensor(picture.mask, picture.crop)
    return image * (1 - mask), mask


def _in_words(source: Picture | str) -> str:
    if isinstance(source, Picture):
        return str(source.path)
    return _caption_in_words(source)


def _caption_in_words(text: str) -> str:
    return f"caption {text[:80]!r}"
