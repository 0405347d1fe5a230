"""Latents and prompt embeddings on disk, each made once and found again by what it was made from."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load, save

from blockrate.core.errors import FileError
from blockrate.engine.data.batches import Sample
from blockrate.engine.data.images import image_tensor, quiet_pillow
from blockrate.engine.memory import release
from blockrate.run.durable import atomic_write, make_folder

# (B, 3, H, W), -1..1 -> latents (B, C, H/8, W/8)
ImageEncoder = Callable[[torch.Tensor], torch.Tensor]
# -> (B, T, D) and pooled (B, D)
PromptEncoder = Callable[[list[str]], tuple[torch.Tensor, torch.Tensor]]
LoadImage = Callable[[], ImageEncoder]
LoadPrompt = Callable[[], PromptEncoder]
# an entry: its file, what it was made from, and what it holds
Made = tuple[Path, str, dict[str, torch.Tensor]]
In = TypeVar("In")
Out = TypeVar("Out")
_EMBEDS = ["prompt_embeds", "pooled_prompt_embeds"]
# raise it when the same key would hold something else: another way to cut, scale or encode
_VERSION = 1


@dataclass(frozen=True)
class Batch:
    """What one forward pass needs. ``files`` names the images, for messages about this batch."""

    latents: torch.Tensor  # (B, C, H/8, W/8)
    prompt_embeds: torch.Tensor  # (B, T, D)
    pooled_prompt_embeds: torch.Tensor  # (B, D)
    loss_weights: torch.Tensor  # (B,)
    files: tuple[str, ...]


@dataclass(frozen=True)
class Cache:
    """A folder of encoded crops and captions. The identities tell all that decides what an encoder gives."""

    folder: Path
    image_identity: str  # weights, precision
    prompt_identity: str  # weights, precision, token length

    def fill(
        self,
        samples: Sequence[Sample],
        *,
        load_image_encoder: LoadImage,
        load_prompt_encoder: LoadPrompt,
        progress: Callable[[int, int], None],
        should_stop: Callable[[], bool],
        prompts: Iterable[str] = (),
    ) -> None:
        """Make what is missing or damaged for the samples and further prompts, keeping each entry at once.

        An encoder is loaded only if something of its kind is missing, and let go before the next is loaded.
        """
        crops = {self._file(sample): sample for sample in samples}
        captions = dict.fromkeys(
            [*prompts, *(text for s in samples for text in (s.prompt, s.pooled_prompt))]
        )
        no_latents = [
            sample for sample in crops.values() if self._latents(sample) is None
        ]
        no_embeds = [text for text in captions if self._embeds(text) is None]
        total = len(crops) + len(captions)
        left = len(no_latents) + len(no_embeds)
        made = self._make(
            no_latents, no_embeds, load_image_encoder, load_prompt_encoder
        )
        with quiet_pillow(), torch.inference_mode():
            for done, (file, source, tensors) in enumerate(
                made, start=total - left + 1
            ):
                if not all(
                    tensor.sum(dtype=torch.float32).isfinite()
                    for tensor in tensors.values()
                ):
                    raise FileError(
                        source,
                        f"its {' and '.join(tensors)} are not finite",
                        "Try weight_dtype FLOAT_32.",
                    )
                make_folder(file.parent)
                atomic_write(
                    file,
                    save(
                        {
                            name: tensor.cpu().contiguous()
                            for name, tensor in tensors.items()
                        }
                    ),
                )
                progress(done, total)
                if should_stop():
                    return

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """Return samples of one bucket as tensors. Raises ``FileError`` if an entry was lost or damaged meanwhile."""
        files = tuple(str(sample.item.path) for sample in samples)
        latents = [
            self._found(self._latents(sample), file)
            for sample, file in zip(samples, files, strict=True)
        ]
        prompts = {
            text: self.prompt(text)
            for sample in samples
            for text in (sample.prompt, sample.pooled_prompt)
        }
        embeds = [prompts[s.prompt][0] for s in samples]
        pooled = [prompts[s.pooled_prompt][1] for s in samples]
        weights = torch.tensor([sample.item.loss_weight for sample in samples])
        return Batch(
            torch.stack(latents),
            torch.stack(embeds),
            torch.stack(pooled),
            weights,
            files,
        )

    def prompt(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return prompt_embeds (T, D) and pooled_prompt_embeds (D,) of a caption or prompt that was filled in."""
        return self._found(self._embeds(text), f"caption {text[:80]!r}")

    def _make(
        self,
        crops: list[Sample],
        texts: list[str],
        load_vae: LoadImage,
        load_text: LoadPrompt,
    ) -> Iterator[Made]:
        """Encode one at a time, for an entry must not depend on what else was missing."""
        if crops:
            encode = load_vae()
            images = prefetch(
                lambda s: image_tensor(s.item.path, s.item.sha256, s.crop), crops
            )
            for sample, image in zip(crops, images, strict=True):
                yield (
                    self._file(sample),
                    str(sample.item.path),
                    {"latents": encode(image[None])[0]},
                )
            del encode
            release()
        if texts:
            encode_prompts = load_text()
            for text in texts:
                tensors = zip(_EMBEDS, encode_prompts([text]), strict=True)
                yield (
                    self._file(text),
                    f"caption {text[:80]!r}",
                    {name: tensor[0] for name, tensor in tensors},
                )
            del encode_prompts
            release()

    def _latents(self, sample: Sample) -> torch.Tensor | None:
        size = (sample.bucket.height // 8, sample.bucket.width // 8)
        tensors = _read(self._file(sample), ["latents"])
        return (
            tensors[0]
            if tensors and tensors[0].dim() == 3 and tensors[0].shape[1:] == size
            else None
        )

    def _embeds(self, text: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        tensors = _read(self._file(text), _EMBEDS)
        return (
            (tensors[0], tensors[1])
            if tensors and [t.dim() for t in tensors] == [2, 1]
            else None
        )

    def _found(self, content: Out | None, source: str) -> Out:
        if content is None:
            raise FileError(
                str(self.folder),
                f"the entry of {source} is missing or damaged",
                "Start again.",
            )
        return content

    def _file(self, source: Sample | str) -> Path:
        made_from: list[object] = ["prompts", self.prompt_identity, source]
        if isinstance(source, Sample):
            made_from = [
                "latents",
                self.image_identity,
                source.item.sha256,
                astuple(source.crop),
            ]
        key = hashlib.sha256(json.dumps([_VERSION, *made_from]).encode()).hexdigest()
        return self.folder / str(made_from[0]) / key[:2] / f"{key[:40]}.safetensors"


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


def _read(file: Path, names: Sequence[str]) -> list[torch.Tensor] | None:
    """Return an entry's tensors, or None if it is absent or anything is wrong with it."""
    try:
        tensors = load(file.read_bytes())
        # A sum is not finite if any part is not, and takes an eighth of the time of isfinite() on bf16.
        finite = all(
            tensor.sum(dtype=torch.float32).isfinite() for tensor in tensors.values()
        )
    except Exception:
        # a damaged header makes safetensors raise more than its own error
        return None
    return (
        [tensors[name] for name in names]
        if finite and tensors.keys() == set(names)
        else None
    )
