"""Latents and prompt embeddings on disk, each made once and found again by what it was made from."""

import gc
import hashlib
import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load, save

from blockrate.core.errors import FileError
from blockrate.engine.data.batches import Sample
from blockrate.engine.data.concepts import write_with_folder
from blockrate.engine.data.images import image_tensor, quiet_pillow

ImageEncoder = Callable[[torch.Tensor], torch.Tensor]  # (B, 3, H, W), -1..1 -> latents (B, C, H/8, W/8)
PromptEncoder = Callable[[list[str]], tuple[torch.Tensor, torch.Tensor]]  # -> (B, T, D) and pooled (B, D)
Made = tuple[Path, str, dict[str, torch.Tensor]]  # an entry: its file, what it was made from, and what it holds
In = TypeVar("In")
Out = TypeVar("Out")
_EMBEDS = ["prompt_embeds", "pooled_prompt_embeds"]
_VERSION = 1  # raise it when the same key would hold something else: another way to cut, scale or encode


@dataclass(frozen=True)
class Batch:
    """What one forward pass needs. ``files`` names the images, for messages about this batch."""

    latents: torch.Tensor  # (B, C, H/8, W/8)
    prompt_embeds: torch.Tensor  # (B, T, D)
    pooled_prompt_embeds: torch.Tensor  # (B, D)
    loss_weights: torch.Tensor  # (B,)
    files: tuple[str, ...]


class Cache:
    """A folder of encoded crops and captions, each in the encoder's own dtype.

    The identities stand for all that decides what an encoder gives: weights, precision, token length.
    """

    def __init__(self, folder: Path, *, image_identity: str, prompt_identity: str) -> None:
        self.folder, self.image_identity, self.prompt_identity = folder, image_identity, prompt_identity

    def fill(
        self,
        samples: Sequence[Sample],
        *,
        load_image_encoder: Callable[[], ImageEncoder],
        load_prompt_encoder: Callable[[], PromptEncoder],
        progress: Callable[[int, int], None],
        should_stop: Callable[[], bool],
        prompts: Iterable[str] = (),
    ) -> None:
        """Make what is missing or damaged for the samples and further prompts; each entry is kept at once.

        An encoder is loaded only if something of its kind is missing, and let go before the next is loaded.
        """
        crops = {self._latents_file(sample): sample for sample in samples}
        captions = dict.fromkeys([*prompts, *(text for s in samples for text in (s.prompt, s.pooled_prompt))])
        no_latents = [sample for sample in crops.values() if self._latents(sample) is None]
        no_embeds = [text for text in captions if self._embeds(text) is None]
        total, left = len(crops) + len(captions), len(no_latents) + len(no_embeds)
        made = chain(
            self._make_latents(no_latents, load_image_encoder), self._make_embeds(no_embeds, load_prompt_encoder)
        )
        with quiet_pillow(), torch.inference_mode():
            for done, (file, source, tensors) in enumerate(made, start=total - left + 1):
                if not all(tensor.isfinite().all() for tensor in tensors.values()):
                    cure = "Set the encoder's weight_dtype to FLOAT_32 or BFLOAT_16; if it stays, leave this one out."
                    raise FileError(source, f"its {' and '.join(tensors)} are not finite numbers", cure)
                write_with_folder(file, save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}))
                progress(done, total)
                if should_stop():
                    return

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """Return samples of one bucket as tensors. Raises ``FileError`` if an entry was lost or damaged meanwhile."""
        files = tuple(str(sample.item.path) for sample in samples)
        latents = [self._found(self._latents(sample), file) for sample, file in zip(samples, files, strict=True)]
        prompts = {text: self.prompt(text) for sample in samples for text in (sample.prompt, sample.pooled_prompt)}
        return Batch(
            torch.stack(latents),
            torch.stack([prompts[sample.prompt][0] for sample in samples]),
            torch.stack([prompts[sample.pooled_prompt][1] for sample in samples]),
            torch.tensor([sample.item.loss_weight for sample in samples]),
            files,
        )

    def prompt(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return prompt_embeds (T, D) and pooled_prompt_embeds (D,) of a caption or prompt that was filled in."""
        return self._found(self._embeds(text), _quoted(text))

    def _make_latents(self, samples: Sequence[Sample], load_encoder: Callable[[], ImageEncoder]) -> Iterator[Made]:
        if samples:
            encode = load_encoder()
            images = prefetch(lambda s: image_tensor(s.item.path, s.item.sha256, s.crop), samples)
            for sample, image in zip(samples, images, strict=True):
                yield self._latents_file(sample), str(sample.item.path), {"latents": encode(image[None])[0]}
            del encode
            _free_memory()

    def _make_embeds(self, texts: Sequence[str], load_encoder: Callable[[], PromptEncoder]) -> Iterator[Made]:
        if texts:
            encode = load_encoder()
            for text in texts:  # alone, as images are: an entry must not depend on what else was missing
                embeds, pooled = encode([text])
                yield self._embeds_file(text), _quoted(text), dict(zip(_EMBEDS, (embeds[0], pooled[0]), strict=True))
            del encode
            _free_memory()

    def _latents(self, sample: Sample) -> torch.Tensor | None:
        size = (sample.bucket.height // 8, sample.bucket.width // 8)
        tensors = _read(self._latents_file(sample), ["latents"])
        return tensors[0] if tensors and tensors[0].dim() == 3 and tensors[0].shape[1:] == size else None

    def _embeds(self, text: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        tensors = _read(self._embeds_file(text), _EMBEDS)
        return (tensors[0], tensors[1]) if tensors and [t.dim() for t in tensors] == [2, 1] else None

    def _found(self, content: Out | None, source: str) -> Out:
        if content is None:
            problem = f"what it held of {source} is missing or damaged"
            raise FileError(str(self.folder), problem, "Start again: the cache makes anew what is wrong.")
        return content

    def _latents_file(self, sample: Sample) -> Path:
        return self._file("latents", self.image_identity, sample.item.sha256, astuple(sample.crop))

    def _embeds_file(self, text: str) -> Path:
        return self._file("prompts", self.prompt_identity, text)

    def _file(self, kind: str, *made_from: object) -> Path:
        key = hashlib.sha256(json.dumps([_VERSION, kind, *made_from]).encode()).hexdigest()
        return self.folder / kind / key[:2] / f"{key[:40]}.safetensors"


def prefetch(make: Callable[[In], Out], wanted: Iterable[In], *, ahead: int = 2) -> Generator[Out, None, None]:
    """Yield ``make(one)`` for each wanted one, in order, made by one thread up to ``ahead`` before they are asked for.

    An error surfaces where its result would have come. Closing waits for the one being made, no more.
    """
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


def _quoted(text: str) -> str:
    return f"the caption {text[:80]!r}"


def _free_memory() -> None:
    gc.collect()  # models hold themselves in circles
    torch.cuda.empty_cache()  # does nothing without CUDA


def _read(file: Path, names: Sequence[str]) -> list[torch.Tensor] | None:
    """Return an entry's tensors, or None if it is absent or anything is wrong with it."""
    try:
        tensors = load(file.read_bytes())
        finite = all(tensor.isfinite().all() for tensor in tensors.values())
    except Exception:  # a damaged header makes safetensors raise more than its own error
        return None
    return [tensors[name] for name in names] if finite and tensors.keys() == set(names) else None
