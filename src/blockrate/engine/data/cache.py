"""Latents and prompt embeddings on disk, each made once and found again by what it was made from."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from safetensors.torch import load, save

from blockrate.core.errors import FileError
from blockrate.dataset.headers import quiet_pillow
from blockrate.engine.data.batches import TrainingExample
from blockrate.engine.data.images import image_tensor
from blockrate.engine.memory import release
from blockrate.models.families import Conditioned
from blockrate.run.durable import atomic_write, make_folder

# (B, 3, H, W), -1..1 -> latents (B, C, H/8, W/8)
ImageEncoder = Callable[[torch.Tensor], torch.Tensor]
# -> by name, each with a first dimension for the batch
PromptEncoder = Callable[[list[str]], dict[str, torch.Tensor]]
LoadImage = Callable[[], ImageEncoder]
LoadPrompt = Callable[[], PromptEncoder]
In = TypeVar("In")
Out = TypeVar("Out")
# raise it when the same key would hold something else: another way to cut, scale or encode
_VERSION = 1


@dataclass(frozen=True)
class Batch:
    """What one forward pass needs. ``files`` names the images, for messages about this batch."""

    latents: torch.Tensor  # (B, C, H/8, W/8)
    conditioning: dict[str, torch.Tensor]  # by name, each (B, ...)
    loss_weights: torch.Tensor  # (B,)
    files: tuple[str, ...]


class Entry(NamedTuple):
    """A file of the cache that is to be written. ``source``: what it was made from, in words."""

    file: Path
    source: str
    tensors: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Cache:
    """A folder of encoded crops and captions. The identities tell all that decides what an encoder gives."""

    folder: Path
    image_identity: str  # weights, precision
    prompt_identity: str  # weights, precision, token length
    conditioning: Mapping[str, Conditioned]  # what a caption becomes, by name

    def fill(
        self,
        examples: Sequence[TrainingExample],
        *,
        load_image_encoder: LoadImage,
        load_prompt_encoder: LoadPrompt,
        progress: Callable[[int, int], None],
        should_stop: Callable[[], bool],
        prompts: Iterable[str] = (),
    ) -> None:
        """Make what is missing or damaged for the examples and further prompts, keeping each entry at once.

        An encoder is loaded only if something of its kind is missing, and let go before the next is loaded.
        """
        crops = {self._file(example): example for example in examples}
        captions = dict.fromkeys(prompts)
        for example in examples:
            captions |= dict.fromkeys(example.captions.values())
        new_crops = [crop for crop in crops.values() if self._latents(crop) is None]
        new_texts = [text for text in captions if self._conditioning(text) is None]
        total = len(crops) + len(captions)
        done = total - len(new_crops) - len(new_texts)
        entries = self._make(
            new_crops, new_texts, load_image_encoder, load_prompt_encoder
        )
        with quiet_pillow(), torch.inference_mode():
            for entry in entries:
                _write(entry)
                done += 1
                progress(done, total)
                if should_stop():
                    return

    def batch(self, examples: Sequence[TrainingExample]) -> Batch:
        """Return examples of one bucket as tensors. Raises ``FileError`` if an entry was lost or damaged meanwhile."""
        latents = []
        for example in examples:
            latents.append(self._whole(self._latents(example), str(example.item.path)))
        return Batch(
            latents=torch.stack(latents),
            conditioning=self._batch_conditioning(examples),
            loss_weights=torch.tensor(
                [example.item.loss_weight for example in examples]
            ),
            files=tuple(str(example.item.path) for example in examples),
        )

    def prompt(self, text: str) -> dict[str, torch.Tensor]:
        """Return the conditioning, without a dimension for the batch, of a caption or prompt that was filled in."""
        return self._whole(self._conditioning(text), _caption_in_words(text))

    def _batch_conditioning(
        self, examples: Sequence[TrainingExample]
    ) -> dict[str, torch.Tensor]:
        """Return what the captions became, each tensor from the caption of its own text encoder."""
        read: dict[str, dict[str, torch.Tensor]] = {}
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
        crops: list[TrainingExample],
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
        self, crops: list[TrainingExample], encode: ImageEncoder
    ) -> Iterator[Entry]:
        images = prefetch(_cropped_image, crops)
        for example, image in zip(crops, images, strict=True):
            latents = encode(image[None])[0]
            source = str(example.item.path)
            yield Entry(self._file(example), source, {"latents": latents})

    def _make_conditioning(
        self, texts: list[str], encode: PromptEncoder
    ) -> Iterator[Entry]:
        for text in texts:
            batch = encode([text])
            tensors = {name: batch[name][0] for name in self.conditioning}
            yield Entry(self._file(text), _caption_in_words(text), tensors)

    def _latents(self, example: TrainingExample) -> torch.Tensor | None:
        size = (example.bucket.height // 8, example.bucket.width // 8)
        tensors = _read(self._file(example), {"latents": 3})
        if tensors and tensors["latents"].shape[1:] == size:
            return tensors["latents"]
        return None

    def _conditioning(self, text: str) -> dict[str, torch.Tensor] | None:
        dimensions = {name: row.dimensions for name, row in self.conditioning.items()}
        return _read(self._file(text), dimensions)

    def _whole(self, content: Out | None, source: str) -> Out:
        """Return what an entry holds. Raises ``FileError`` if there is nothing, for it was there when the run began."""
        if content is None:
            problem = f"the entry of {source} is missing or damaged"
            raise FileError(str(self.folder), problem, "Start again.")
        return content

    def _file(self, source: TrainingExample | str) -> Path:
        """Return where the latents of an example, or the conditioning of a caption, are kept."""
        if isinstance(source, TrainingExample):
            kind = "latents"
            crop = astuple(source.crop)
            made_from: list[object] = [self.image_identity, source.item.sha256, crop]
        else:
            kind = "prompts"
            made_from = [self.prompt_identity, source]
        text = json.dumps([_VERSION, kind, *made_from])
        key = hashlib.sha256(text.encode()).hexdigest()
        # by two letters, because some file systems are slow with many files in one folder
        return self.folder / kind / key[:2] / f"{key[:40]}.safetensors"


def prefetch(
    make: Callable[[In], Out], wanted: Iterable[In], *, ahead: int = 2
) -> Generator[Out, None, None]:
    """Yield ``make(one)`` for each, in order, made ahead by one thread; an error surfaces where its result would."""
    pending: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(1) as thread:
        try:
            for one in wanted:
                pending.append(thread.submit(make, one))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _cropped_image(example: TrainingExample) -> torch.Tensor:
    return image_tensor(example.item.path, example.item.sha256, example.crop)


def _caption_in_words(text: str) -> str:
    return f"caption {text[:80]!r}"


def _write(entry: Entry) -> None:
    if not _all_finite(entry.tensors):
        problem = f"its {' and '.join(entry.tensors)} are not finite"
        raise FileError(entry.source, problem, "Try weight_dtype FLOAT_32.")
    on_cpu = {name: tensor.cpu().contiguous() for name, tensor in entry.tensors.items()}
    make_folder(entry.file.parent)
    atomic_write(entry.file, save(on_cpu))


def _read(file: Path, dimensions: Mapping[str, int]) -> dict[str, torch.Tensor] | None:
    """Return an entry's tensors, or None if it is absent or anything is wrong with it.

    ``dimensions``: how many each tensor has, by name.
    """
    try:
        tensors = load(file.read_bytes())
        finite = _all_finite(tensors)
    except Exception:
        # a damaged header makes safetensors raise more than its own error
        return None
    found = {name: tensor.dim() for name, tensor in tensors.items()}
    return tensors if finite and found == dimensions else None


def _all_finite(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether every value is finite.

    A sum is not finite if any part is not, and takes an eighth of the time of isfinite() on bf16.
    """
    return all(
        tensor.sum(dtype=torch.float32).isfinite() for tensor in tensors.values()
    )
