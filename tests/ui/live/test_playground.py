"""The model that draws for the app: when it is started, and when it is let go."""

import json
import shlex
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest

from blockrate.config.drawing import Drawing
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.run.drawing import Origin
from blockrate.run.easel import Easel
from blockrate.run.folder import lock, read_json, write_heartbeat
from blockrate.ui.live import playground as playground_module
from blockrate.ui.live.drawn import facts_of, state_in_words
from blockrate.ui.live.playground import Playground

ORIGIN = Origin(TrainConfig(base_model_name="tiny-flux1"))
CAT = Drawing(prompt="a cat")
# what stands for the engine: it leaves a mark, and ends without a word
ENDS = "import pathlib, sys; pathlib.Path(sys.argv[-1], 'began').open('a').write('x')"


@pytest.fixture
def playground(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Playground]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(
        "BLOCKRATE_ENGINE", shlex.join([sys.executable, "-I", "-c", ENDS])
    )
    return Playground


def began(playground: Playground) -> int:
    """How many engines were started."""
    mark = playground.easel.run.path / "began"
    return len(mark.read_text()) if mark.exists() else 0


def look_until(playground: Playground, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        playground.look(training=False)
        time.sleep(0.05)


def test_a_picture_waits_while_a_run_is_at_work_and_is_drawn_then(
    playground: Callable[[], Playground],
) -> None:
    ours = playground()
    ours.ask(ORIGIN, CAT)
    assert ours.look(training=True)
    assert "1 picture waits until the run at work has ended" in state_in_words(
        ours.seen
    )
    assert began(ours) == 0
    look_until(ours, lambda: began(ours) == 1)


def test_a_process_that_ends_without_a_picture_is_not_started_again_and_again(
    playground: Callable[[], Playground],
) -> None:
    ours = playground()
    ours.ask(ORIGIN, CAT)
    look_until(ours, lambda: bool(ours.seen.problem))
    for _ in range(5):
        ours.look(training=False)
    assert began(ours) == 1
    assert "Draw tries again" in state_in_words(ours.seen)
    ours.ask(ORIGIN, CAT)
    look_until(ours, lambda: began(ours) == 2)


def test_what_waits_is_there_after_the_app_was_killed(
    playground: Callable[[], Playground],
) -> None:
    playground().ask(ORIGIN, CAT)
    ours = playground()
    look_until(ours, lambda: began(ours) == 1)


def test_pictures_of_two_models_do_not_wait_together(
    playground: Callable[[], Playground],
) -> None:
    ours = playground()
    ours.ask(ORIGIN, CAT)
    other = Origin(TrainConfig(base_model_name="miniature"))
    with pytest.raises(ConfigError, match="pictures by another model wait"):
        ours.ask(other, CAT)
    ours.withdraw_all()
    ours.ask(other, CAT)
    config = read_json(ours.easel.run.config_file)
    assert config["base_model_name"] == "miniature"


def test_two_pages_that_ask_for_two_models_at_once_do_not_mix_them(
    playground: Callable[[], Playground], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = playground()
    came, may_go = Event(), Event()

    def ends_slowly() -> None:
        came.set()
        assert may_go.wait(60)

    monkeypatch.setattr(ours, "_end_process", ends_slowly)
    other = Origin(TrainConfig(base_model_name="miniature"))
    with ThreadPoolExecutor() as pages:
        one = pages.submit(ours.ask, ORIGIN, CAT)
        assert came.wait(60)
        another = pages.submit(ours.ask, other, CAT)
        with suppress(TimeoutError):
            another.result(0.2)
        may_go.set()
        assert one.result(60) is None
        with pytest.raises(ConfigError, match="pictures by another model wait"):
            another.result(60)
    config = read_json(ours.easel.run.config_file)
    assert config["base_model_name"] == "tiny-flux1"
    assert len(ours.easel.waiting()) == 1


def test_a_page_and_the_clock_that_look_at_once_start_one_process(
    playground: Callable[[], Playground], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = playground()
    came, may_go, ends = Event(), Event(), Event()
    starts = []

    def starts_slowly(easel: Easel) -> object:
        starts.append(easel)
        came.set()
        assert may_go.wait(60)
        return SimpleNamespace(process=SimpleNamespace(wait=ends.wait))

    monkeypatch.setattr(playground_module, "start", starts_slowly)
    ours.ask(ORIGIN, CAT)
    with ThreadPoolExecutor() as looks:
        one = looks.submit(ours.look, training=False)
        assert came.wait(60)
        another = looks.submit(ours.look, training=False)
        with suppress(TimeoutError):
            another.result(0.2)
        told_meanwhile = ours.seen.problem
        may_go.set()
        assert one.result(60)
        another.result(60)
    assert len(starts) == 1
    assert told_meanwhile == ours.seen.problem == ""
    ends.set()


def test_a_loaded_model_is_let_go_for_a_run_and_when_nobody_looks(
    playground: Callable[[], Playground],
) -> None:
    for training, has_page in ((True, True), (False, False), (False, True)):
        ours = playground()
        if has_page:
            ours.enter()
        ours.ask(ORIGIN, CAT)
        for picture in ours.easel.waiting():
            ours.easel.withdraw(picture)
        run = ours.easel.run
        with lock(run):
            write_heartbeat(run, "waiting", 0)
            ours.look(training=training)
            commands = [read_json(file) for file in run.commands.iterdir()]
        wanted = [] if (training, has_page) == (False, True) else [{"command": "stop"}]
        assert commands == wanted
        for file in run.commands.iterdir():
            file.unlink()


def test_a_drawing_is_told_by_what_is_special_of_it() -> None:
    drawing = Drawing(
        seed=3,
        diffusion_steps=8,
        lora="x.safetensors",
        strength=0.5,
        block_scale={"single_block_7": 0.0, "double_block_1": 0.5},
        negative_prompt="a dog",
    )
    told = "seed 3 · 8 steps · strength 0.5 · single 7 off · 1 block scaled · away from a dog"
    assert facts_of(drawing) == told
    off = json.loads('{"single_block_1": 0, "single_block_2": 0, "other": 0}')
    edited = Drawing(references=["a.png", "b.png"])
    assert "from 2 images" in facts_of(edited)
    many = drawing.model_copy(update={"block_scale": {**off, "single_block_3": 0}})
    assert "4 blocks off" in facts_of(many)
