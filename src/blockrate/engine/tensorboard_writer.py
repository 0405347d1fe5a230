"""TensorBoard scalars and images, when tensorboard is installed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blockrate.engine.steps import StepResult
from blockrate.run.events import EventLog, Validated, Warned


class TensorBoardWriter:
    """Writes a run's curves below ``folder``. Without the package it says so once and does nothing.

    The package is imported with the first curve, after the first step, because the import takes seconds.
    """

    def __init__(self, folder: Path, log: EventLog) -> None:
        self.folder = folder
        self.log = log
        self._writer: Any = None
        self._ended = False

    def step(self, step: int, result: StepResult, rate: float) -> None:
        """Write loss, base rate and gradient norm, and by block what the step's telemetry measured.

        Of an optimizer that finds its own step size also that, and the rates it comes to.
        """
        values: dict[str, float | None] = {
            "loss/train": result.loss,
            "rate/base": rate,
            "gradient/norm": result.grad_norm,
            "rate/effective": result.effective.largest_rate,
            "rate/d": result.effective.largest_d,
        }
        if result.blocks:
            for name, value in result.blocks.learning_rates.items():
                values[f"rate/{name}"] = value
            for name, value in result.blocks.effective_rates.items():
                values[f"effective/{name}"] = value
            for name, value in result.blocks.grad_norms.items():
                values[f"gradient/{name}"] = value
            for name, value in result.blocks.update_ratios.items():
                values[f"update/{name}"] = value
        self.scalars(values, step)

    def validated(self, step: int, validated: Validated) -> None:
        """Write the validation loss, that of each concept where there are several, and the drift."""
        values = {
            "loss/validation": validated.loss,
            "drift/validation": validated.drift,
        }
        if len(validated.concepts) > 1:
            for concept in validated.concepts:
                values[f"loss/validation/{concept.name}"] = concept.loss
        self.scalars(values, step)

    def scalars(self, values: Mapping[str, float | None], step: int) -> None:
        """Add one point to each curve that has a value."""
        with self._writing() as writer:
            for name, value in values.items():
                # what is not a number is no point of a curve
                if writer and value is not None and math.isfinite(value):
                    writer.add_scalar(name, value, step)

    def images(self, files: Sequence[Path], step: int) -> None:
        """Show samples under their number, so that a slider goes through the steps."""
        with self._writing() as writer:
            for number, file in enumerate(files):
                if writer:
                    pixels = _pixels(file)
                    name = f"samples/{number}"
                    writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer:
            with self._writing() as writer:
                writer.close()

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """Give the writer, or None. Whatever fails in it, a full disk or the package, ends the curves alone."""
        writer = None
        try:
            writer = self._open()
        except Exception as error:
            self._end(error)
        try:
            yield writer
        except Exception as error:
            self._end(error)

    def _end(self, error: Exception) -> None:
        self._ended = True
        self._writer = None
        kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
        self._warn(f"no more curves for TensorBoard: {kind}{error}")

    def _open(self) -> Any:
        if self._writer is not None or self._ended:
            return self._writer
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._ended = True
            cure = (
                "install it with `pip install tensorboard`, or set tensorboard to false"
            )
            self._warn(f"tensorboard is not installed: no curves; {cure}")
            return None
        self._writer = SummaryWriter(str(self.folder))
        return self._writer

    def _warn(self, message: str) -> None:
        self.log.write(Warned("tensorboard", message), step=self.log.step)


def _pixels(file: Path) -> Any:
    """Return an image file as an array (H, W, 3)."""
    import numpy as np
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
