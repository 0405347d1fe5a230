"""What a model in training is measured on: the loss of each concept, and how far the answers have drifted."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import NotANumberError
from blockrate.engine import flow_matching, ranks
from blockrate.engine.data.batches import TrainingExample
from blockrate.engine.data.cache import Batch
from blockrate.engine.data.dealing import Piece
from blockrate.engine.data.noised import NoisedBatch, with_noise
from blockrate.engine.preparation import Data
from blockrate.engine.spoilt import steps_cure
from blockrate.engine.state import TrainingState
from blockrate.engine.steps import listed, predicted, sample_losses
from blockrate.run.events import ConceptLoss, Validated

# stands for the step in the draws of noise: the same every time
_STEP = -1
# of a concept's name in an event
_LONGEST_NAME = 100


@dataclass
class Sum:
    """What was added up, and over how many images."""

    total: float = 0.0
    images: int = 0

    def add(self, values: Sequence[float]) -> None:
        """Add one value for each of some images."""
        self.total += sum(values)
        self.images += len(values)

    @property
    def mean(self) -> float | None:
        """None over no image."""
        return self.total / self.images if self.images else None


@dataclass
class Measured:
    """What one rank has measured: of several the parts add up.

    ``loss``: its share of the mean over all images. ``by_concept``: the losses by the concept's index.
    """

    loss: float = 0.0
    by_concept: dict[int, Sum] = field(default_factory=dict)
    drift: Sum = field(default_factory=Sum)

    def add_losses(self, piece: Piece, losses: Sequence[float]) -> None:
        """Add the loss of every image of a piece."""
        for example, loss in zip(piece.examples, losses, strict=True):
            self.by_concept.setdefault(example.item.concept, Sum()).add([loss])


def of_all(measured: Measured, config: TrainConfig) -> Validated:
    """Return what all ranks have measured together."""
    parts = ranks.gathered(measured)
    by_concept: dict[int, Sum] = {}
    drift = Sum()
    for part in parts:
        for concept, losses in part.by_concept.items():
            _join(by_concept.setdefault(concept, Sum()), losses)
        _join(drift, part.drift)
    names = _names(config, by_concept)
    concepts = [
        ConceptLoss(
            concept=concept,
            name=names[concept],
            role=config.concepts[concept].role,
            images=losses.images,
            loss=losses.mean,
        )
        for concept, losses in sorted(by_concept.items())
    ]
    return Validated(sum(part.loss for part in parts), concepts, drift.mean)


def _join(whole: Sum, part: Sum) -> None:
    whole.total += part.total
    whole.images += part.images


def _names(config: TrainConfig, concepts: Iterable[int]) -> dict[int, str]:
    """Return what to call concepts, each otherwise."""
    names = {}
    for index in concepts:
        concept = config.concepts[index]
        name = concept.name or Path(concept.path).name or f"concepts.{index}"
        names[index] = name[:_LONGEST_NAME]
    count = Counter(names.values())
    return {
        index: name if count[name] == 1 else f"{name} (concepts.{index})"
        for index, name in names.items()
    }


class Validation:
    """Measures a model in training, always on the same images, noise and times.

    Noise and times are those of the seed, the images and the batch size: runs that differ by rates have the same.
    """

    def __init__(self, state: TrainingState, data: Data, config: TrainConfig) -> None:
        self._state = state
        self._data = data
        self._config = config
        examples = list(chain.from_iterable(data.validation))
        measured = {example.item.concept for example in examples}
        kept = {index for index in measured if config.concepts[index].role == "keep"}
        self._kept = kept or measured
        self._places = places(data.validation, by_concept=bool(kept))
        # what the model answers without its adapters, which never changes, in main memory: by piece
        self._base: list[Tensor] = []

    def measure(self) -> Measured:
        """Return what this rank measures now.

        Raises NotANumberError, with the files of the first batch whose loss is none.
        """
        pieces = self._data.validation_pieces()
        with self._state.evaluation(), torch.no_grad():
            if self._state.adds_by and not self._base:
                self._base = self._answers_of_base(pieces)
            return self._measured(pieces)

    def _answers_of_base(self, pieces: Sequence[tuple[Piece, Batch]]) -> list[Tensor]:
        answers = []
        with self._state.without_adapters():
            for piece, batch in pieces:
                rows = self._drifting(piece)
                answer = batch.latents[:0]
                # ranks that share the weights make every pass together
                if rows or ranks.is_sharded():
                    answer = predicted(
                        self._state, self._drawn(piece, batch), self._config
                    )
                    answer = answer[rows].cpu()
                answers.append(answer)
        return answers

    def _measured(self, pieces: Sequence[tuple[Piece, Batch]]) -> Measured:
        count = pieces[0][0].of
        measured = Measured()
        total = 0.0
        bad = ""
        for number, (piece, batch) in enumerate(pieces):
            drawn = self._drawn(piece, batch)
            prediction = predicted(self._state, drawn, self._config)
            losses = sample_losses(prediction, drawn, self._config)
            loss = losses.mean().item()
            if not math.isfinite(loss):
                bad = bad or listed(batch.files)
            total += loss * piece.counted
            if piece.counts:
                measured.add_losses(piece, losses.tolist())
            rows = self._drifting(piece)
            if rows and piece.counts and self._base:
                moved = squares(prediction[rows], self._base[number])
                measured.drift.add(moved)
        # only now: ranks that share the weights make every pass together
        if bad:
            problem = f"the loss on {bad} is not a number"
            cure = steps_cure(self._config, trained=True)
            raise NotANumberError("validation", problem, cure)
        measured.loss = total / count
        return measured

    def _drawn(self, piece: Piece, batch: Batch) -> NoisedBatch:
        """Return a piece with its noise and its times, on the device."""
        noise, _ = flow_matching.draw(
            self._config.seed,
            _STEP,
            piece.micro_batch,
            batch.latents.shape,
            first=piece.first,
        )
        end = piece.first + len(piece.examples)
        uniform = self._places[piece.micro_batch][piece.first : end]
        family = self._state.family
        drawn = with_noise(batch, self._config, family, noise, uniform)
        return drawn.on(self._state.device)

    def _drifting(self, piece: Piece) -> list[int]:
        """Return which images of a piece the drift is measured on, by their place in it."""
        return [
            row
            for row, example in enumerate(piece.examples)
            if example.item.concept in self._kept
        ]


def places(
    batches: Sequence[Sequence[TrainingExample]], *, by_concept: bool
) -> list[Tensor]:
    """Return for each batch the places (B,) of its images in 0..1, from which their times come: evenly spread.

    ``by_concept``: over the images of each concept, so that all are measured over the whole range of times; else over
    all images.
    """
    groups: Mapping[int, int] = Counter(
        _group(example, by_concept) for batch in batches for example in batch
    )
    seen: Counter[int] = Counter()
    spread = []
    for batch in batches:
        numbers = []
        counts = []
        for example in batch:
            group = _group(example, by_concept)
            numbers.append(seen[group])
            counts.append(groups[group])
            seen[group] += 1
        spread.append((torch.tensor(numbers) + 0.5) / torch.tensor(counts))
    return spread


def _group(example: TrainingExample, by_concept: bool) -> int:
    return example.item.concept if by_concept else 0


def squares(prediction: Tensor, base: Tensor) -> list[float]:
    """Return the mean square difference of two predictions (B, ...) by image, computed in fp32."""
    difference = prediction.float() - base.to(prediction.device).float()
    moved: list[float] = difference.square().flatten(1).mean(1).tolist()
    return moved
