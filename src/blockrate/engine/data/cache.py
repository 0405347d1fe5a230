"""Latents and prompt embeddings on disk, each made once and found again by what it was made from."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load, save

from blockrate.core.errors import FileError
from blockrate.engine.data.batches import TrainingExample
from blockrate.engine.data.images import image_tensor, quiet_pillow
from blockrate.engine.memory import release
from blockrate.models.families import Conditioned
from blockrate.run.durable import atomic_write, make_folder

# (B, 3, H, W), -1..1 -> latents (B, C, H/8, W/8)
ImageEncoder = Callable[[torch.Tensor], torch.Tensor]
# -> by name, each with a first dimension for the batch
PromptEncoder = Callable[[list[str]], dict[str, torch.Tensor]]
LoadImage = Callable[[], ImageEncoder]
LoadPrompt = Callable[[], PromptEncoder]
# an entry: its file, what it was made from, and what it holds
Made = tuple[Path, str, dict[str, torch.Tensor]]
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
        no_latents = [
            example for example in crops.values() if self._latents(example) is None
        ]
        no_embeds = [text for text in captions if self._conditioning(text) is None]
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

    def batch(self, examples: Sequence[TrainingExample]) -> Batch:
        """Return examples of one bucket as tensors. Raises ``FileError`` if an entry was lost or damaged meanwhile."""
        files = tuple(str(example.item.path) for example in examples)
        latents = [
            self._found(self._latents(example), file)
            for example, file in zip(examples, files, strict=True)
        ]
        weights = torch.tensor([example.item.loss_weight for example in examples])
        return Batch(
            torch.stack(latents), self._batch_conditioning(examples), weights, files
        )

    def prompt(self, text: str) -> dict[str, torch.Tensor]:
        """Return the conditioning, without a dimension for the batch, of a caption or prompt that was filled in."""
        return self._found(self._conditioning(text), f"caption {text[:80]!r}")

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
    ) -> Iterator[Made]:
        """Encode one at a time, for an entry must not depend on what else was missing."""
        if crops:
            encode = load_vae()
            images = prefetch(
                lambda s: image_tensor(s.item.path, s.item.sha256, s.crop), crops
            )
            for example, image in zip(crops, images, strict=True):
                yield (
                    self._file(example),
                    str(example.item.path),
                    {"latents": encode(image[None])[0]},
                )
            del encode
            release()
        if texts:
            encode_prompts = load_text()
            for text in texts:
                tensors = encode_prompts([text])
                yield (
                    self._file(text),
                    f"caption {text[:80]!r}",
                    {name: tensors[name][0] for name in self.conditioning},
                )
            del encode_prompts
            release()

    def _latents(self, example: TrainingExample) -> torch.Tensor | None:
        size = (example.bucket.height // 8, example.bucket.width // 8)
        tensors = _read(self._file(example), {"latents": 3})
        if tensors and tensors["latents"].shape[1:] == size:
            return tensors["latents"]
        return None

    def _conditioning(self, text: str) -> dict[str, torch.Tensor] | None:
        dimensions = {name: row.dimensions for name, row in self.conditioning.items()}
        return _read(self._file(text), dimensions)

    def _found(self, content: Out | None, source: str) -> Out:
        if content is None:
            raise FileError(
                str(self.folder),
                f"the entry of {source} is missing or damaged",
                "Start again.",
            )
        return content

    def _file(self, source: TrainingExample | str) -> Path:
        made_from: list[object] = ["prompts", self.prompt_identity, source]
        if isinstance(source, TrainingExample):
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


def _read(file: Path, dimensions: Mapping[str, int]) -> dict[str, torch.Tensor] | None:
    """Return an entry's tensors, or None if it is absent or anything is wrong with it.

    ``dimensions``: how many each tensor has, by name.
    """
    try:
        tensors = load(file.read_bytes())
        # A sum is not finite if any part is not, and takes an eighth of the time of isfinite() on bf16.
        finite = all(
            tensor.sum(dtype=torch.float32).isfinite() for tensor in tensors.values()
        )
    except Exception:
        # a damaged header makes safetensors raise more than its own error
        return None
    found = {name: tensor.dim() for name, tensor in tensors.items()}
    return tensors if finite and found == dimensions else None
