"""Pictures by what was trained: the run's own at full strength, the base's at none, blocks by their scale."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.lives import SPEC, Small, events, make_small

from blockrate.config.drawing import Drawing, Drawn, drawing_config, read_drawing
from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout, block_of
from blockrate.core.errors import OutOfMemoryError
from blockrate.engine.draw import draw
from blockrate.engine.models import sample
from blockrate.engine.models.common import FamilyModule
from blockrate.run.checkpoints import checkpoints
from blockrate.run.drawing import make_ready, origin_of
from blockrate.run.easel import Easel
from blockrate.run.events import EventLog
from blockrate.run.folder import RunFolder, StopFlag, StopRequested

# one precision of each test in the whole suite
pytestmark = [pytest.mark.engine, pytest.mark.cases(1)]
SAMPLE = {"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 3, "seed": 7}
BLOCK = "single_block_1"


@dataclass(frozen=True)
class Trained:
    """A finished run, and everything that one model drew of it, by a word for each."""

    run: RunFolder
    config: TrainConfig
    easel: Easel
    drawn: dict[str, Drawn]

    def pixels(self, what: str) -> NDArray[np.uint8]:
        drawn = self.drawn[what]
        assert not drawn.problem, drawn.problem
        return pixels(self.easel.pictures / drawn.file)

    def sample(self, step: int, number: int = 0) -> NDArray[np.uint8]:
        [file] = self.run.samples.glob(f"step-{step:08d}-{number}-*.png")
        return pixels(file)


def pixels(file: Path) -> NDArray[np.uint8]:
    with Image.open(file) as image:
        return np.array(image)


def without_block(file: Path, block: str, target: Path) -> Path:
    """A LoRA file without the tensors of a block."""
    with safe_open(file, "pt") as stream:
        metadata = stream.metadata()
    tensors = {
        name: tensor
        for name, tensor in load_file(file).items()
        if block_of(name.removesuffix(".weight")) != block
    }
    save_file(tensors, target, metadata)
    return target


def asked(run: RunFolder, config: TrainConfig, elsewhere: Path) -> dict[str, Any]:
    """What is drawn of a run: by a word, the values that differ from the usual."""
    file = Path(config.output_model_destination)
    kohya = run.path / "exported.safetensors"
    fewer = without_block(file, BLOCK, run.path / "fewer.safetensors")
    return {
        "as trained": {},
        "at half": {"strength": 0.5},
        "at none": {"strength": 0.0},
        "alone": {"lora": ""},
        "checkpoint": {"lora": str(checkpoints(run.checkpoints)[-1])},
        "block off": {"block_scale": {BLOCK: 0.0}},
        "block gone": {"lora": str(fewer)},
        "block at half": {"block_scale": {BLOCK: 0.5}},
        "all off": {"block_scale": dict.fromkeys((*SPEC.layout.names, "other"), 0)},
        "kohya": {"lora": str(kohya)},
        "as trained again": {},
        "of another model": {"lora": str(elsewhere)},
        "no such file": {"lora": str(run.path / "gone.safetensors")},
        "no such block": {"block_scale": {"single_block_9": 0.5}},
        "away from": {"negative_prompt": "a dog"},
    }


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The LoRA of a narrower model."""
    import torch

    from blockrate.engine.adapters.file import LoraWeights, save_lora

    folder = tmp_path_factory.mktemp("elsewhere")
    weights = {
        "transformer_blocks.0.attn.to_q": LoraWeights(
            torch.ones(1, 16), torch.ones(16, 1), 1.0
        )
    }
    file = folder / "narrow.safetensors"
    save_lora(
        file,
        weights,
        architecture=SPEC.architecture,
        file_format="DIFFUSERS_LORA",
        dtype=torch.float32,
        metadata={},
    )
    return file


def trained(small: Small, folder: Path, elsewhere: Path, **settings: Any) -> Trained:
    """Train, and draw everything with one model that stays loaded."""
    values: dict[str, Any] = {
        "samples": [SAMPLE],
        "sample_at_start": True,
        "sample_after": 1000,
        "sample_after_unit": "STEP",
        "epochs": 2,
        "learning_rate": 0.03,
        "learning_rate_warmup_steps": 0,
        "lora_alpha": 2.0,
        "layer_filter": "",
        "layer_filter_preset": "blocks",
        "output_dtype": "FLOAT_32",
        **settings,
    }
    config = small.config(folder / "run", **values)
    run = small.live(config)
    _as_kohya(run, config)
    easel = Easel(folder / "drawn")
    origin = origin_of(run.path, None)
    make_ready(easel, origin.config, idle_seconds=0)
    ids = {}
    for what, more in asked(run, config, elsewhere).items():
        values = {**SAMPLE, "lora": origin.lora, **more}
        ids[what] = easel.ask(read_drawing(values))
    log = EventLog(easel.run.events_file)
    draw(drawing_config(config), easel.run, log, StopFlag())
    assert easel.waiting() == []
    drawn = {what: answer for what, one in ids.items() if (answer := easel.drawn(one))}
    assert drawn.keys() == ids.keys()
    return Trained(run, config, easel, drawn)


def _as_kohya(run: RunFolder, config: TrainConfig) -> None:
    """The same LoRA in another tool's form."""
    import torch

    from blockrate.engine.adapters.file import read_lora, save_lora

    weights = read_lora(Path(config.output_model_destination), SPEC.architecture)
    save_lora(
        run.path / "exported.safetensors",
        weights,
        architecture=SPEC.architecture,
        file_format="KOHYA_LORA",
        dtype=torch.float32,
        metadata={},
    )


@pytest.fixture(scope="module", params=["FLOAT_32", "BFLOAT_16"])
def made(
    request: pytest.FixtureRequest,
    small: Small,
    tmp_path_factory: pytest.TempPathFactory,
    elsewhere: Path,
) -> Trained:
    folder = tmp_path_factory.mktemp("made")
    form = {"weight_dtype": request.param}
    return trained(
        small, folder, elsewhere, train_dtype=request.param, transformer=form
    )


def test_as_trained_it_is_what_the_run_drew_at_its_end(made: Trained) -> None:
    last = made.sample(max(_steps(made.run)))
    for what in ("as trained", "checkpoint", "as trained again"):
        assert np.array_equal(made.pixels(what), last), what
    assert not np.array_equal(last, made.sample(0)), "nothing was learned"


def _steps(run: RunFolder) -> list[int]:
    return [int(file.name.split("-")[1]) for file in run.samples.glob("*.png")]


def test_at_no_strength_it_is_the_base(made: Trained) -> None:
    base = made.pixels("alone")
    assert np.array_equal(base, made.sample(0)), "what the run drew before it learned"
    assert np.array_equal(made.pixels("at none"), base)
    assert np.array_equal(made.pixels("all off"), base)


def test_a_block_at_no_scale_is_the_file_without_its_tensors(made: Trained) -> None:
    off = made.pixels("block off")
    assert np.array_equal(off, made.pixels("block gone"))
    different = [made.pixels(what) for what in ("as trained", "block at half")]
    assert not any(np.array_equal(off, other) for other in different)


def test_less_is_between(made: Trained) -> None:
    full, half, none = (
        made.pixels(what).astype(float) for what in ("as trained", "at half", "at none")
    )
    assert 0 < np.abs(half - none).mean() < np.abs(full - none).mean()


def test_the_file_of_another_tool_draws_the_same(made: Trained) -> None:
    ours, theirs = (made.pixels(what).astype(int) for what in ("as trained", "kohya"))
    # its q, k and v are one module: the products are added in another order
    assert np.abs(ours - theirs).mean() < 1


def test_what_cannot_be_drawn_says_why_and_the_rest_is(made: Trained) -> None:
    told = {what: drawn.problem for what, drawn in made.drawn.items() if drawn.problem}
    assert "which this model has as" in told.pop("of another model")
    assert "gone.safetensors" in told.pop("no such file")
    assert "single_block_0 to single_block_1" in told.pop("no such block")
    assert "takes no negative prompt" in told.pop("away from")
    assert told == {}
    assert len(events(made.easel.run, "warned")) == 4


def test_a_picture_says_what_drew_it(made: Trained) -> None:
    drawn = made.drawn["block at half"]
    with Image.open(made.easel.pictures / drawn.file) as image:
        texts = image.info
    assert texts["prompt"] == "a cat"
    assert texts["seed"] == "7"
    assert texts["lora"] == made.config.output_model_destination
    assert json.loads(texts["block_scale"]) == {BLOCK: 0.5}
    beside = json.loads((made.easel.pictures / f"{drawn.id}.json").read_text())
    assert read_drawing(beside["drawing"]) == drawn.drawing
    assert beside["model"] == made.config.base_model_name


# -- what ends it ------------------------------------------------------------------------------------------------------


@contextmanager
def wanting(small: Small, folder: Path, **more: Any) -> Iterator[Easel]:
    """A picture that is wanted of the bare model."""
    easel = Easel(folder / "drawn")
    make_ready(easel, small.config(folder / "run"), idle_seconds=0)
    easel.ask(Drawing(**{**SAMPLE, **more}))
    yield easel


def drawing(small: Small, easel: Easel, stop: StopFlag) -> None:
    config = drawing_config(small.config(easel.run.path))
    draw(config, easel.run, EventLog(easel.run.events_file), stop)


def test_a_stop_leaves_the_picture_wanted(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = StopFlag()
    with wanting(small, tmp_path) as easel:
        real = sample.draw_image

        def stopping(*args: Any, **kwargs: Any) -> object:
            stop.requested = True
            return real(*args, **kwargs)

        monkeypatch.setattr("blockrate.engine.draw.draw_image", stopping)
        with pytest.raises(StopRequested):
            drawing(small, easel, stop)
        assert len(easel.waiting()) == 1
        assert easel.all_drawn() == []


def test_full_memory_is_told_in_words_of_drawing_and_not_tried_again(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> object:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr("blockrate.engine.draw.draw_image", full)
    with wanting(small, tmp_path) as easel:
        with pytest.raises(OutOfMemoryError):
            drawing(small, easel, StopFlag())
        assert easel.waiting() == []
        [drawn] = easel.all_drawn()
    assert "is full in drawing" in drawn.problem
    assert "width and height lower" in drawn.problem
    assert "batch_size" not in drawn.problem


def test_a_damaged_wish_is_passed_over(small: Small, tmp_path: Path) -> None:
    with wanting(small, tmp_path) as easel:
        (easel.wanted / "00000000000000000001-aaaa.json").write_text("{")
        drawing(small, easel, StopFlag())
        assert len(easel.all_drawn()) == 1
    assert "aaaa" in str(events(easel.run, "warned"))


def test_a_family_that_moves_away_from_words_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blockrate.engine.models import FAMILY_MODULES
    from blockrate.models.families import FAMILIES

    spec = replace(FAMILIES["tiny-chroma"].spec, layout=BlockLayout(1, 1))
    small = make_small(tmp_path, spec)
    config = small.config(tmp_path / "run", model_type="CHROMA_1")
    easel = Easel(tmp_path / "drawn")
    make_ready(easel, config, idle_seconds=0)
    values = {**SAMPLE, "diffusion_steps": 1, "cfg_scale": 4.0}
    for words in ("", "a dog"):
        easel.ask(Drawing(**values, negative_prompt=words))
    loads: list[int] = []
    family: FamilyModule = FAMILY_MODULES[spec.architecture]
    real = family.load_transformer

    def load(*args: Any) -> Any:
        loads.append(1)
        return real(*args)

    monkeypatch.setattr(family, "load_transformer", load)
    draw(drawing_config(config), easel.run, EventLog(easel.run.events_file), StopFlag())
    dog, plain = easel.all_drawn()
    assert plain.file
    assert dog.file
    one, other = (pixels(easel.pictures / drawn.file) for drawn in (plain, dog))
    assert not np.array_equal(one, other)
    assert loads == [1], "it stays loaded in between"
