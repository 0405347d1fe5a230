"""A model that draws what it is asked for, one picture after the other, and stays loaded in between."""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blockrate.config.drawing import Drawing, Drawn, check_drawing, config_of
from blockrate.config.files import parse_config
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import (
    BlockrateError,
    NotANumberError,
    OutOfMemoryError,
    is_full_memory,
)
from blockrate.engine.adapters.file import LoraWeights, read_lora
from blockrate.engine.adapters.lora import check_shapes, linear_shapes, lora_of
from blockrate.engine.adapters.put_on import put_on, take_off
from blockrate.engine.attention import attention
from blockrate.engine.checkpoint import read_tensors
from blockrate.engine.exactness import allow_tf32, reproducible
from blockrate.engine.full_memory import out_of_memory
from blockrate.engine.memory import computing_in, pick_device
from blockrate.engine.models.common import ModelFiles
from blockrate.engine.models.locate import locate
from blockrate.engine.models.sample import EncodedPrompt, draw_image, png_of
from blockrate.engine.preparation import encode_samples
from blockrate.models.part_files import part_files
from blockrate.run.checkpoints import read_state
from blockrate.run.durable import MANIFEST, atomic_write
from blockrate.run.easel import Easel
from blockrate.run.events import EventLog, Phase, Sampled, Warned
from blockrate.run.folder import RunFolder, StopFlag
from blockrate.run.saved_state import STATE

_GLANCE = 0.2  # seconds
_WAITING = "waiting"
_DRAWING = "drawing"
# of a model's encoders, what they need beside their weights
_ROOM = 1.3
_OTHER_LORA = "Choose a LoRA of this model."
_FAULTS = {
    "latents": "its numbers are none any more",
    "pixels": "the VAE makes no numbers of it",
    "one colour": "it has one colour alone",
}


def draw(
    config: TrainConfig, run: RunFolder, log: EventLog, stop: StopFlag
) -> list[Path]:
    """Draw what is wanted in the folder until nothing is for a while, and return the pictures."""
    easel = Easel(run.path)
    idle = run.options().get("idle_seconds", 0.0)
    patience = float(idle) if isinstance(idle, int | float) else 0.0
    made: list[Path] = []
    with ExitStack() as stack:
        stack.enter_context(reproducible(config.deterministic))
        device, why = pick_device(config.train_device)
        print(f"drawing on {device}: {why}")
        stack.enter_context(attention(config, device))
        painter = Painter(config, device, log, stop)
        last = time.monotonic()
        while True:
            stop.obey()
            wanted = easel.waiting()
            if wanted:
                made += painter.draw(easel, wanted[0], number=len(made))
                last = time.monotonic()
            elif time.monotonic() - last >= patience:
                return made
            else:
                _wait(log)


def _wait(log: EventLog) -> None:
    if log.phase != _WAITING:
        log.write(Phase(_WAITING), step=log.step)
    time.sleep(_GLANCE)


@dataclass
class Painter:
    """The model that draws, each part loaded when it is needed first."""

    config: TrainConfig
    device: torch.device
    log: EventLog
    stop: StopFlag
    files: ModelFiles | None = None
    transformer: Any = None
    vae: Any = None
    # what is on the transformer now
    _put_on: tuple[object, ...] | None = None
    _learned: dict[object, Mapping[str, LoraWeights]] = field(default_factory=dict)

    def draw(self, easel: Easel, picture: str, *, number: int) -> list[Path]:
        """Draw what is wanted under an id and answer it; return the file, if there is one.

        Raises what ends the process, with the answer written; a stop leaves it to be wanted.
        """
        began = time.monotonic()
        try:
            drawing = easel.drawing(picture)
        except BlockrateError as error:
            # nobody can say what it was to be
            self.log.write(Warned(_DRAWING, f"{picture}: {error}"), step=number)
            easel.withdraw(picture)
            return []
        drawn = Drawn(
            id=picture, drawing=drawing, model=self._model_name(), time=time.time()
        )
        try:
            image = self._image(drawing, number)
        except BlockrateError as error:
            easel.answer(drawn.model_copy(update={"problem": str(error)}))
            if isinstance(error, OutOfMemoryError):
                raise
            self.log.write(Warned(_DRAWING, str(error)), step=number)
            return []
        except Exception as error:
            problem = f"{type(error).__name__}; details are in {easel.run.log_file}"
            easel.answer(drawn.model_copy(update={"problem": problem}))
            raise
        file = easel.pictures / f"{picture}.png"
        atomic_write(file, png_of(image, drawing, _texts(drawing, drawn.model)))
        seconds = round(time.monotonic() - began, 2)
        easel.answer(drawn.model_copy(update={"file": file.name, "seconds": seconds}))
        name = file.relative_to(easel.run.path).as_posix()
        self.log.write(Sampled([name]), step=number + 1)
        return [file]

    def _model_name(self) -> str:
        return self.config.transformer.model_name or self.config.base_model_name

    def _image(self, drawing: Drawing, number: int) -> Tensor:
        """Return the picture; what is wrong with what is asked for is told before anything is loaded for it."""
        try:
            check_drawing(drawing, self.config)
            files = self._located()
            learned = self._learned_by(drawing, files)
            prompt = self._encoded(drawing, files)
            transformer = self._loaded(files)
            self._put(drawing, learned)
            return self._drawn(drawing, prompt, files, transformer, number)
        except Exception as error:
            if not is_full_memory(error) or isinstance(error, BlockrateError):
                raise
            raise out_of_memory(error, self.config, _DRAWING) from error

    def _drawn(
        self,
        drawing: Drawing,
        prompt: EncodedPrompt,
        files: ModelFiles,
        transformer: Any,
        number: int,
    ) -> Tensor:
        """Return the picture, and tell of each of its steps. Raises StopRequested, NotANumberError."""
        steps = drawing.diffusion_steps
        done = 0

        def look() -> bool:
            nonlocal done
            done = min(done + 1, steps)
            self.log.write(Phase("sampling", done, steps), step=number)
            return self.stop.requested

        self.log.write(Phase("sampling", 0, steps), step=number)
        allow_tf32(self.config, self.device)
        image = draw_image(
            files,
            transformer,
            partial(self._vae_of, files),
            prompt,
            precision=partial(computing_in, self.config.autocasts(), self.device),
            should_stop=look,
        )
        if isinstance(image, Tensor):
            return image
        self.stop.obey()
        problem = f"is no picture: {_FAULTS.get(str(image), '')}"
        cure = "Try a lower strength, other scales, or another seed."
        raise NotANumberError("What was drawn", problem, cure)

    # -- the parts of the model

    def _located(self) -> ModelFiles:
        if self.files is None:
            self.log.write(Phase("loading"), step=self.log.step)
            self.files = locate(self.config, self._report, self._warn)
        return self.files

    def _report(self, done: int, total: int) -> None:
        self.stop.obey()
        self.log.write(Phase("loading", done, total), step=self.log.step)

    def _warn(self, message: str) -> None:
        self.log.write(Warned(_DRAWING, message), step=self.log.step)

    def _encoded(self, drawing: Drawing, files: ModelFiles) -> EncodedPrompt:
        """Return what the prompt became, on the disk from then on."""
        # encoders that are kept in fp32 stay exact
        torch.backends.cuda.matmul.allow_tf32 = False
        config = config_of(drawing, self.config)
        if files.negative_prompt is not None:
            files = replace(files, negative_prompt=drawing.negative_prompt)
        place = self._place_for_encoders(files)
        [prompt] = encode_samples(config, files, place, self.log, self.stop)
        return prompt

    def _place_for_encoders(self, files: ModelFiles) -> torch.device:
        """Return the device, unless the model that draws leaves them no room there."""
        if self.transformer is None or self.device.type != "cuda":
            return self.device
        names = [part for part in files.parts if part.startswith("text_encoder")]
        every = [file for part in names for file in part_files(part, files.parts[part])]
        needed = _ROOM * sum(file.stat().st_size for file in every)
        free, _ = torch.cuda.mem_get_info(self.device)
        return self.device if free > needed else torch.device("cpu")

    def _loaded(self, files: ModelFiles) -> Any:
        if self.transformer is None:
            self.log.write(Phase("loading"), step=self.log.step)
            transformer = files.family.load_transformer(files, self.config, self.device)
            self.transformer = transformer.eval()
        return self.transformer

    def _vae_of(self, files: ModelFiles) -> Any:
        if self.vae is None:
            self.vae = files.family.load_vae(
                files.parts["vae"],
                weight_dtype=self.config.vae.weight_dtype,
                device=self.device,
            )
        return self.vae

    # -- what was learned

    def _learned_by(
        self, drawing: Drawing, files: ModelFiles
    ) -> Mapping[str, LoraWeights]:
        """Return what a LoRA adds, proven to fit; nothing without one. Raises ConfigError, FileError."""
        if not drawing.lora:
            return {}
        path = Path(drawing.lora)
        found = self._key_of(path)
        if found not in self._learned:
            weights = _read(path, files)
            check_shapes(weights, linear_shapes(files.spec), cure=_OTHER_LORA)
            # the last alone: a large one has gigabytes
            self._learned = {found: weights}
        return self._learned[found]

    def _key_of(self, path: Path) -> object:
        """Return what tells a file from what it was before."""
        file = path / MANIFEST if path.is_dir() else path
        facts = file.stat() if file.is_file() else None
        return (str(path), facts and (facts.st_size, facts.st_mtime_ns))

    def _put(self, drawing: Drawing, learned: Mapping[str, LoraWeights]) -> None:
        """Have on the transformer what the drawing asks for, and nothing else."""
        scales = tuple(sorted(drawing.block_scale.items()))
        key = self._key_of(Path(drawing.lora)) if drawing.lora else None
        wanted = (key, drawing.strength, scales)
        if wanted == self._put_on:
            return
        # half way there it has neither
        self._put_on = None
        take_off(self.transformer)
        put_on(
            self.transformer,
            learned,
            self.config,
            strength=drawing.strength,
            block_scale=drawing.block_scale,
        )
        self._put_on = wanted


def _read(path: Path, files: ModelFiles) -> Mapping[str, LoraWeights]:
    """Return the weights of a LoRA file, or of a checkpoint: its average, where it has one, as samples are drawn."""
    if not (path / STATE).is_file():
        return read_lora(path, files.spec.architecture)
    state = dict(read_state(path)["config"])
    config = parse_config(state, ignore_unsupported=True, where=str(path)).config
    weights = {**read_tensors(path, "weights"), **read_tensors(path, "average")}
    return lora_of(weights, config.lora_alpha / config.lora_rank)


def _texts(drawing: Drawing, model: str) -> dict[str, str]:
    """Return what else of a drawing stands in its picture."""
    texts = {
        "model": model,
        "lora": drawing.lora,
        "lora_strength": f"{drawing.strength:g}" if drawing.lora else "",
        "block_scale": json.dumps(drawing.block_scale) if drawing.block_scale else "",
        "negative_prompt": drawing.negative_prompt,
    }
    return {name: text for name, text in texts.items() if text}
