"""The Run tab in a real browser: every state of a run, charts that grow, and runs that outlive the app."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from support.apps import PHOTOS, App
from support.screens import faint, nameless, sideways, small_targets

from blockrate.core.blocks import BlockLayout
from blockrate.run.events import (
    Blocks,
    Event,
    EventLog,
    Failed,
    Finished,
    Phase,
    Sampled,
    Saved,
    Started,
    Step,
    Stopped,
    Validated,
    Warned,
    read_events,
)
from blockrate.run.folder import RunFolder, is_alive, read_json, set_aside
from blockrate.run.process import SENTENCES
from blockrate.ui.parts.labels import advice

StartApp = Callable[..., App]
OpenPage = Callable[..., Page]
Engine = Callable[..., None]
NAMES = BlockLayout(19, 38).names
FROZEN = NAMES[:6]
GROUPS = [
    {
        "name": name,
        "blocks": [name],
        "parameters": 25_600,
        "multiplier": round(1 - place / 100, 2),
        "learning_rate": 1,
    }
    for place, name in enumerate(NAMES[6:])
]
CONFIG = {
    "base_model_name": "tiny-flux1",
    "layer_filter_preset": "blocks",
    "block_learning_rate_multiplier": dict.fromkeys(FROZEN, 0.0),
}
HEART = """
import sys
from pathlib import Path
from blockrate.run.folder import RunFolder, lock, write_heartbeat

run = RunFolder(Path(sys.argv[1]))
with lock(run):
    for line in sys.stdin:
        phase, step = line.split()
        write_heartbeat(run, phase, int(step))
        print("told", flush=True)
"""
HOSTILE = "<img src=x onerror=alert(1)></script>${x}"


def blocks(step: int) -> Blocks:
    rates = {name: 1e-4 * (1 - place / 100) for place, name in enumerate(NAMES[6:])}
    return Blocks(rates, dict.fromkeys(rates, 0.001 * step), dict.fromkeys(rates, 1e-4))


class Made:
    """A run folder with a history, as an engine would have left it."""

    def __init__(self, path: Path) -> None:
        self.run = RunFolder(path)
        self.run.create(json.dumps({**CONFIG, "workspace_dir": str(path)}))
        self.run.who_file.write_text("{}")
        self.run.log_file.write_text(
            "".join(f"line {number}\n" for number in range(1, 301))
        )
        self.log = EventLog(self.run.events_file)
        self.step = 0

    def tell(self, *events: Event) -> "Made":
        for event in events:
            self.log.write(event, step=self.step)
        return self

    def train(self, steps: int) -> "Made":
        """Steps of 1.5 s with a loss that falls; blocks every tenth, validation every twentieth."""
        if not self.step:
            self.tell(
                Phase("caching", 22, 22),
                Started("hash", 1, GROUPS, NAMES[6]),
                Phase("training", 0, 200),
            )
        for _ in range(steps):
            self.step += 1
            self.tell(Step(1 / self.step, 1e-4, 1.0, 1.5))
            self.tell(
                *[blocks(self.step)] * (self.step % 10 == 0),
                *[Validated(0.5)] * (self.step % 20 == 0),
            )
        return self

    def sample(self, *prompts: str) -> "Made":
        files = [
            f"samples/step-{self.step:08d}-{number}-{prompt}.png"
            for number, prompt in enumerate(prompts)
        ]
        for file in files:
            Image.new("RGB", (32, 32), (self.step, 90, 90)).save(self.run.path / file)
        return self.tell(Sampled(files))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder for runs that the app may see into."""
    return tmp_path / "work" / "runs"


@pytest.fixture
def made(runs: Path) -> Made:
    """A run of 60 steps, sampled at 20, 40 and 60."""
    made = Made(runs / "portrait")
    for _ in range(3):
        made.train(20).sample("a-cat", "a-cup-of-coffee")
    return made.tell(
        Saved(made.run.checkpoints / "step-00000060", "checkpoint"),
        Warned("data", "4 captions are cut"),
    )


@pytest.fixture
def shown(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path
) -> Callable[..., Page]:
    """Open the Run tab of an app that was following this run when it ended."""

    def shown(made: Made, **look: Any) -> Page:
        (tmp_path / "home").mkdir(exist_ok=True)
        (tmp_path / "home" / "preferences.json").write_text(
            json.dumps({"last_run": str(made.run.path)})
        )
        return open_page(start_app(), "/run", **look)

    return shown


@pytest.fixture
def engine() -> Iterator[Callable[[Made, str], None]]:
    """Let a process that is no engine hold a run's lock and tell heart beats."""
    with ExitStack() as stack:
        beating: dict[Made, subprocess.Popen[str]] = {}

        def beat(made: Made, phase: str) -> None:
            if made not in beating:
                pipe = subprocess.PIPE
                command = [sys.executable, "-c", HEART, str(made.run.path)]
                process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
                beating[made] = stack.enter_context(process)
                stack.callback(process.kill)
            heart = beating[made]
            assert heart.stdin
            assert heart.stdout
            print(phase, made.step, file=heart.stdin, flush=True)
            assert heart.stdout.readline()

        yield beat


def heat_map(page: Page) -> Locator:
    return page.get_by_role("img", name=re.compile("by block"))


def loss(page: Page) -> Locator:
    return page.get_by_role("img", name=re.compile("^Loss"))


def title(page: Page) -> Locator:
    return page.locator(".run-head h2")


def no_run_is_alive(page: Page, state: str) -> None:
    expect(page.get_by_role("status")).to_have_text(state)
    for name in ("Sample now", "Save now", "Force stop"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)


# -- states ------------------------------------------------------------------------------------------------------------


def test_without_a_run_the_tab_says_how_to_begin(app: App, open_page: OpenPage) -> None:
    page = open_page(app, "/run")
    no_run_is_alive(page, "No run")
    expect(
        page.get_by_text("No run yet. Start from the Training tab.").filter(
            visible=True
        )
    ).to_have_count(1)
    expect(page.get_by_role("heading", level=2).filter(visible=True)).to_have_count(0)
    page.get_by_role("button", name="Go to Training").click()
    expect(page.get_by_role("tab", name="Training")).to_have_attribute(
        "aria-selected", "true"
    )


def test_preparing_shows_the_stage_and_how_far_it_is(
    made: Made, engine: Engine, shown: Callable[..., Page]
) -> None:
    made.tell(Phase("caching", 12, 22))
    engine(made, "caching")
    page = shown(made)
    expect(page.get_by_role("status")).to_have_text("Preparing")
    expect(title(page)).to_have_text("Caching 12 of 22")
    expect(
        page.get_by_role("progressbar", name="How far the run is")
    ).to_have_js_property("value", 12 / 22)
    made.tell(Phase("caching", 13, 22))
    expect(title(page)).to_have_text("Caching 13 of 22")


def test_running_shows_how_fast_it_is_and_for_how_long_still(
    made: Made, engine: Engine, shown: Callable[..., Page]
) -> None:
    engine(made, "training")
    page = shown(made)
    expect(page.get_by_role("status")).to_have_text("Running")
    expect(title(page)).to_have_text("Step 60 of 200")
    expect(page.get_by_text("1.5 s/step · 4 min left · loss 0.01667")).to_be_visible()
    page.get_by_role("button", name="Sample now").click()
    page.get_by_role("button", name="Save now").click()
    expect(page.get_by_text("A checkpoint comes after this step")).to_be_visible()
    assert sorted(
        read_json(file)["command"] for file in made.run.commands.iterdir()
    ) == ["sample", "save"]


def test_nothing_is_said_of_the_speed_before_ten_steps(
    runs: Path, engine: Engine, shown: Callable[..., Page]
) -> None:
    young = Made(runs / "young").train(9)
    engine(young, "training")
    expect(shown(young).get_by_text("— s/step · — left · loss 0.1111")).to_be_visible()


def test_stopping_is_told_and_asked_for_once(
    made: Made, engine: Engine, shown: Callable[..., Page]
) -> None:
    engine(made, "training")
    page = shown(made)
    expect(page.get_by_role("status")).to_have_text("Running")
    for _ in range(10):
        page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Stopping")
    expect(title(page)).to_have_text("Stopping at step 60")
    expect(page.get_by_text("Finishing the step, then saving")).to_be_visible()
    expect(page.get_by_role("button", name="Force stop")).to_have_count(0)
    assert [read_json(file)["command"] for file in made.run.commands.iterdir()] == [
        "stop"
    ]


@pytest.mark.skipif(
    os.name == "nt", reason="an app that is not forked keeps its patience of a minute"
)
def test_a_run_that_does_not_stop_can_be_forced_to(
    made: Made, engine: Engine, start_app: StartApp, open_page: OpenPage, tmp_path: Path
) -> None:
    engine(made, "training")
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "preferences.json").write_text(
        json.dumps({"last_run": str(made.run.path)})
    )
    page = open_page(start_app(PATIENCE_OF_TEST="0"), "/run")
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("button", name="Force stop").click()
    question = page.get_by_role("dialog", name="Stop the run at once?")
    question.get_by_role("button", name="Keep waiting").click()
    expect(question).to_have_count(0)
    assert is_alive(made.run)
    page.get_by_role("button", name="Force stop").click()
    question.get_by_role("button", name="Force stop").click()
    no_run_is_alive(page, "No run")
    expect(title(page)).to_have_text("Stopped at step 60")
    expect(
        page.locator(".run-head").get_by_text("The run left at once, as asked.")
    ).to_be_visible()
    expect(page.locator(".run-head .banner")).to_contain_text(
        "Press Start: it goes on from the last checkpoint"
    )
    assert not is_alive(made.run)


def test_a_finished_run_shows_where_its_files_are(
    made: Made, shown: Callable[..., Page]
) -> None:
    (made.run.path.parents[1] / "portrait.safetensors").write_bytes(b"weights")
    page = shown(made.tell(Finished(["portrait.safetensors"])))
    no_run_is_alive(page, "Finished")
    expect(title(page)).to_have_text("Finished after step 60")
    expect(page.get_by_text("4 captions are cut")).to_be_visible()
    files = page.locator(".run-files li")
    work = made.run.path.parents[1]
    expect(files.locator(".mono")).to_have_text(
        [
            str(work / "portrait.safetensors"),
            str(made.run.checkpoints / "step-00000060"),
            str(made.run.path),
        ]
    )
    with page.expect_download() as download:
        page.get_by_role("link", name="Download portrait.safetensors").click()
    assert download.value.suggested_filename == "portrait.safetensors"
    assert download.value.path().read_bytes() == b"weights"
    page.get_by_role("button", name="Copy the path of portrait.safetensors").click()
    expect(page.get_by_text("Copied", exact=True)).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == str(
        work / "portrait.safetensors"
    )


@pytest.mark.parametrize(
    ("code", "cure"),
    [(71, "batch size"), (65, "Model and Data"), (76, "learning rate")],
)
def test_a_failed_run_says_why_what_to_try_and_what_it_said_last(
    code: int, cure: str, made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made.tell(Failed(code, "it ran into a wall")))
    no_run_is_alive(page, "Failed")
    expect(title(page)).to_have_text("Failed at step 60")
    head = page.locator(".run-head")
    expect(head).to_contain_text("It ran into a wall")
    expect(head.locator(".banner")).to_contain_text(cure)
    last = page.get_by_role("region", name="End of the log")
    expect(last).to_have_text(re.compile(r"^line 271\b.*line 300$", re.DOTALL))


def test_a_lost_run_says_how_to_go_on(made: Made, shown: Callable[..., Page]) -> None:
    page = shown(made)
    no_run_is_alive(page, "Lost")
    expect(title(page)).to_have_text("Lost after step 60")
    expect(page.locator(".run-head .banner")).to_contain_text(
        "Press Start: it goes on from the last checkpoint"
    )
    expect(page.get_by_role("region", name="End of the log")).to_contain_text(
        "line 300"
    )


def test_a_stopped_run_can_go_on(made: Made, shown: Callable[..., Page]) -> None:
    page = shown(made.tell(Stopped()))
    no_run_is_alive(page, "No run")
    expect(title(page)).to_have_text("Stopped at step 60")
    expect(page.locator(".run-head .banner")).to_have_text(
        "Press Start: it goes on from there."
    )


def test_there_is_advice_for_every_way_to_end_badly() -> None:
    assert [code for code in SENTENCES if code and not advice(str(code))] == []
    assert advice("0") == ""


# -- charts ------------------------------------------------------------------------------------------------------------


def test_the_loss_is_drawn_raw_smoothed_and_of_the_validation(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    expect(loss(page)).to_have_accessible_name(
        re.compile(r"Loss\. Step 60, raw 0\.0167, smoothed 0\.\d+, validation 0\.5")
    )
    chart = page.locator(".loss-chart")
    smooth = page.locator(".loss-chart .smoothed").last
    before = smooth.get_attribute("d")
    page.get_by_role("slider", name="Smoothing").fill("0")
    expect(smooth).to_have_attribute(
        "d", str(chart.locator("path.raw").get_attribute("d"))
    )
    assert smooth.get_attribute("d") != before
    expect(chart.locator(".chart-names span").last).to_have_text("1")
    page.get_by_role("switch", name="Log scale").click()
    expect(chart.locator(".chart-names span").first).to_have_text("0.016")
    chart.locator(".loss-field").hover(position={"x": 0, "y": 40})
    expect(chart.locator(".chart-bar")).to_contain_text("Step 1 ")


def test_the_heat_map_reads_every_block_by_mouse_and_keys(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    expect(heat_map(page)).to_have_accessible_name(
        re.compile("^Gradient norm by block, 6 columns")
    )
    told = page.locator(".chart-bar [aria-live]")
    corner = heat_map(page).evaluate(
        "map => [map.clientWidth - 1, map.clientHeight - 1]"
    )
    heat_map(page).hover(position={"x": corner[0], "y": corner[1]})
    expect(told).to_have_text("Step 60 · single 37 · 0.06")
    heat_map(page).hover(position={"x": 1, "y": 1})
    expect(told).to_have_text("Step 10 · double 0 · frozen")
    heat_map(page).focus()
    for key in ("Home", *["ArrowDown"] * 6):
        page.keyboard.press(key)
    expect(told).to_have_text("Step 10 · double 6 · 0.01")
    page.get_by_role("radio", name="Learning rate").click()
    expect(heat_map(page)).to_have_accessible_name(
        re.compile("^Learning rate by block, 6 columns, from 0 to 1.0e-4")
    )
    heat_map(page).focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    expect(told).to_have_text("Step 60 · double 0 · frozen")
    for _ in range(7):
        page.keyboard.press("ArrowDown")
    expect(told).to_have_text("Step 60 · double 7 · 9.90e-5")
    page.get_by_role("radio", name="Relative update").click()
    expect(heat_map(page)).to_have_accessible_name(
        re.compile("^Relative update by block, 6 columns")
    )
    heat_map(page).focus()
    for key in ("End", *["ArrowDown"] * 7):
        page.keyboard.press(key)
    expect(told).to_have_text("Step 60 · double 7 · 1.00e-4")


def test_frozen_rows_are_hatched_and_the_scale_goes_from_dark_to_light(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    expect(heat_map(page)).to_have_accessible_name(re.compile("6 columns"))
    look = """(map, [x, y]) => [...map.getContext("2d").getImageData(x * (map.width - 1), y, 1, 1).data]"""
    frozen, low, high = (
        heat_map(page).evaluate(look, place) for place in ([0, 3], [0, 100], [1, 100])
    )
    assert frozen[3] == 0, "what stays clear shows the hatching behind"
    assert (low[3], high[3]) == (255, 255)
    assert sum(low[:3]) < sum(high[:3])
    expect(page.locator(".heat-field")).to_have_css(
        "background-image", re.compile("linear-gradient")
    )


def test_only_what_is_new_is_sent_and_only_to_who_looks(
    made: Made, engine: Engine, shown: Callable[..., Page]
) -> None:
    engine(made, "training")
    page = shown(made)
    expect(heat_map(page)).to_have_accessible_name(re.compile("6 columns"))
    frames: list[str] = []
    devtools = page.context.new_cdp_session(page)
    devtools.on(
        "Network.webSocketFrameReceived",
        lambda event: frames.append(event["response"]["payloadData"]),
    )
    devtools.send("Network.enable")
    made.train(10)
    expect(heat_map(page)).to_have_accessible_name(re.compile("7 columns"))
    expect(loss(page)).to_have_accessible_name(re.compile("Step 70"))
    sent = [frame for frame in frames if '"take"' in frame]
    starts = re.findall(
        r'"take","?\w*"?,?\[?"(\w+)",(\d+)', "".join(sent).replace('"args":[', "")
    )
    assert {name: int(start) for name, start in starts}.keys() <= {
        "raw",
        "validation",
        "blocks",
    }
    assert all(
        int(start) >= {"raw": 60, "validation": 3, "blocks": 6}[name]
        for name, start in starts
    )
    assert sum(map(len, sent)) < 4000
    page.get_by_role("tab", name="Data").click()
    frames.clear()
    made.train(10)
    expect(page.locator(".bottom")).to_contain_text("Step 80 of 200")
    assert [frame for frame in frames if '"take"' in frame] == []
    page.get_by_role("tab", name="Run").click()
    expect(heat_map(page)).to_have_accessible_name(re.compile("8 columns"))


def test_what_is_really_trained_is_told_from_the_optimizer(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    expect(
        page.get_by_text(
            "51 of 57 blocks trained, 1,305,600 parameters. Double 0-5 frozen."
        )
    ).to_be_visible()
    rows = page.get_by_role("table", name="What is really trained").get_by_role("row")
    expect(rows).to_have_count(52)
    expect(rows.nth(1).get_by_role("cell")).to_have_text(
        ["double 6", "25,600", "1", "1.00e-04"]
    )
    expect(rows.last.get_by_role("cell")).to_have_text(
        ["single 37", "25,600", "0.5", "5.00e-05"]
    )


# -- samples and log ---------------------------------------------------------------------------------------------------


def test_samples_are_turned_over_by_step_and_compared_with_the_first(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    pictures = page.locator(".samples img")

    # red of the first point of each picture; a picture that is still loading has none
    read = "image => { const c = new OffscreenCanvas(1, 1).getContext('2d'); c.drawImage(image, 0, 0); "
    read += "return c.getImageData(0, 0, 1, 1).data[0] }"
    near = f"reds => [...document.querySelectorAll('.samples img')].map({read})"
    near += ".every((r, k) => Math.abs(r - reds[k]) < 5)"

    expect(pictures).to_have_count(2)
    expect(page.locator(".samples li")).to_contain_text(["a cat", "a cup of coffee"])
    slider = page.get_by_role("slider", name="Step of the samples")
    expect(slider).to_have_attribute("aria-valuetext", "Step 60")
    slider.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "Step 40")
    page.get_by_role("switch", name="Compare with the first").click()
    expect(pictures).to_have_count(4)
    page.wait_for_function(near, arg=[20, 40, 20, 40])
    made.train(20).sample("a-cat", "a-cup-of-coffee")
    expect(slider).to_have_attribute("max", "3")
    expect(slider).to_have_attribute("aria-valuetext", "Step 40")
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "Step 80")


def test_samples_outside_the_folders_that_may_be_seen_are_not_shown(
    tmp_path: Path, shown: Callable[..., Page]
) -> None:
    page = shown(Made(tmp_path / "elsewhere").train(20).sample("a-cat"))
    expect(page.get_by_text("The samples cannot be shown")).to_be_visible()
    expect(page.locator(".samples img")).to_have_count(0)


def test_the_log_follows_until_it_is_told_not_to(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made)
    log = page.get_by_role("region", name="Lines of the log")
    expect(log).to_contain_text("line 300")
    assert "line 100\n" not in log.inner_text(), "200 lines are enough"
    assert log.evaluate("box => box.scrollTop") == 0, "the end is in sight"
    with made.run.log_file.open("a") as stream:
        stream.write("\x1b[31mline 301\x1b[0m\n")
    expect(log).to_have_text(re.compile("line 301$"))
    page.get_by_role("switch", name="Follow").click()
    with made.run.log_file.open("a") as stream:
        stream.write("line 302\n")
    expect(page.get_by_role("region", name="End of the log")).to_contain_text(
        "line 302"
    )
    expect(log).not_to_contain_text("line 302")
    page.get_by_role("switch", name="Follow").click()
    expect(log).to_contain_text("line 302")


def test_what_a_run_says_is_shown_as_text(
    made: Made, shown: Callable[..., Page]
) -> None:
    made.run.log_file.write_text(f"{HOSTILE}\n")
    page = shown(made.tell(Warned("x", HOSTILE), Failed(1, HOSTILE)))
    # sentence, note, both logs, bottom bar
    expect(page.get_by_text(HOSTILE)).to_have_count(5)
    assert page.locator("[onerror]").count() == 0


# -- earlier runs ------------------------------------------------------------------------------------------------------


def test_earlier_runs_are_listed_shown_and_run_again(
    made: Made, runs: Path, shown: Callable[..., Page]
) -> None:
    Made(runs / "older").train(10).tell(Stopped())
    Made(runs / "newer").train(30).tell(Finished([]))
    # else all three may be of the same tick of the clock
    for age, name in enumerate(("newer", "older"), 1):
        os.utime(runs / name / "events.jsonl", (time.time() - 60 * age,) * 2)
    page = shown(made.tell(Stopped()))
    rows = page.locator(".past-runs li")
    expect(rows).to_have_text(
        [re.compile("^Stopped.*portrait"), re.compile("newer"), re.compile("older")]
    )
    expect(rows.nth(1)).to_contain_text(re.compile("Finished.*step 30 · loss 0.03333"))
    page.get_by_role("button", name="Show: older").click()
    expect(title(page)).to_have_text("Stopped at step 10")
    expect(loss(page)).to_have_accessible_name(re.compile("Step 10"))
    page.get_by_role("button", name="Run again with these settings: newer").click()
    expect(page.get_by_role("tab", name="Training")).to_have_attribute(
        "aria-selected", "true"
    )
    expect(page.get_by_role("banner")).to_contain_text("newer again")
    page.get_by_role("textbox", name="Epochs").fill("3")
    page.get_by_role("tab", name="Run").click()
    page.get_by_role("button", name="Run again with these settings: older").click()
    page.get_by_role("dialog", name="Save the changes?").get_by_role(
        "button", name="Cancel"
    ).click()
    expect(page.get_by_role("banner")).to_contain_text("newer again")


def test_runs_that_were_set_aside_are_listed_too(
    made: Made, shown: Callable[..., Page]
) -> None:
    made.tell(Stopped())
    assert set_aside(made.run)
    Made(made.run.path).train(10).tell(Stopped())
    page = shown(made)
    rows = page.locator(".past-runs li")
    expect(rows).to_have_count(2)
    page.get_by_role("button", name=re.compile("Show: portrait until 20")).click()
    expect(title(page)).to_have_text("Stopped at step 60")
    expect(rows).to_have_count(2)


def test_no_other_run_is_shown_while_one_is_at_work(
    made: Made, runs: Path, engine: Engine, shown: Callable[..., Page]
) -> None:
    Made(runs / "older").train(10).tell(Stopped())
    engine(made, "training")
    page = shown(made)
    page.get_by_role("button", name="Show: older").click()
    expect(
        page.get_by_text("Past runs can be shown when this one has ended.")
    ).to_be_visible()
    expect(title(page)).to_have_text("Step 60 of 200")


# -- real runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """Settings that train the toy model for an hour, or so long as nobody stops it."""
    photos = tmp_path / "work" / "photos"
    photos.mkdir(parents=True)
    for name in ("cat", "coffee"):
        with Image.open(PHOTOS / f"{name}.jpg") as image:
            image.resize((64, 64)).save(photos / f"{name}.png")
        (photos / f"{name}.txt").write_text(f"a photo of a {name}")
    plain = {"weight_dtype": "FLOAT_32"}
    return {
        **CONFIG,
        "concepts": [{"path": "photos"}],
        "workspace_dir": "runs/toy",
        "cache_dir": "cache",
        "resolution": "64",
        "batch_size": 1,
        "epochs": 5000,
        "train_dtype": "FLOAT_32",
        "lora_rank": 4,
        "transformer": {**plain, "gradient_checkpointing": False},
        "text_encoder": plain,
        "text_encoder_2": plain,
        "text_encoder_2_sequence_length": 16,
        "learning_rate_warmup_steps": 0,
        "tensorboard": False,
        "telemetry_every": 2,
        "backup_after": 5,
        "backup_after_unit": "STEP",
        "output_model_destination": "runs/toy/toy.safetensors",
    }


@pytest.fixture
def toy(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "work" / "runs" / "toy")


def start(page: Page, times: int = 1) -> None:
    for _ in range(times):
        page.get_by_role("button", name="Start", exact=True).click()


def until_step(page: Page, least: int) -> None:
    """Wait until the toy model has done so many steps; it has to be made, and on a busy machine that takes a while."""
    step = "Number(document.querySelector('.run-head h2')?.textContent.match(/^Step (\\d+) of/)?.[1])"
    page.wait_for_function(f"least => {step} >= least", arg=least, timeout=120_000)


def events(run: RunFolder, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(run.events_file)[0] if event["type"] == kind]


def open_toy(start_app: StartApp, folder: Path, config: dict[str, Any]) -> App:
    (folder / "toy.json").write_text(json.dumps(config))
    return start_app("toy.json")


@pytest.mark.usefixtures("warm_engine")
def test_start_and_stop_pressed_ten_times_in_two_browsers_are_one_run(
    toy: RunFolder,
    config: dict[str, Any],
    start_app: StartApp,
    open_page: OpenPage,
    tmp_path: Path,
) -> None:
    app = open_toy(start_app, tmp_path / "work", config)
    pages = open_page(app, "/run"), open_page(app, "/training")
    for _ in range(5):
        for page in pages:
            start(page, 1)
    for page in pages:
        page.get_by_role("tab", name="Run").click()
        until_step(page, 6)
    assert len(events(toy, "started")) == 1
    assert "in use" not in toy.log_file.read_text()
    for page in pages * 5:
        page.get_by_role("button", name="Stop", exact=True).click()
    for page in pages:
        expect(page.get_by_role("status")).to_have_text("No run", timeout=60_000)
        expect(title(page)).to_have_text(re.compile(r"^Stopped at step \d+$"))
    assert [event["type"] for event in read_events(toy.events_file)[0]][-1] == "stopped"
    assert list(toy.commands.iterdir()) == []
    step = events(toy, "stopped")[0]["step"]
    assert (toy.checkpoints / f"step-{step:08d}").is_dir(), "a stop saves first"


@pytest.mark.usefixtures("warm_engine")
def test_training_outlives_the_app_which_finds_it_again(
    toy: RunFolder,
    config: dict[str, Any],
    start_app: StartApp,
    open_page: OpenPage,
    tmp_path: Path,
    tolerated: list[str],
) -> None:
    tolerated.append("ERR_CONNECTION|WebSocket")
    app = open_toy(start_app, tmp_path / "work", config)
    page = open_page(app, "/run")
    start(page)
    until_step(page, 6)
    app.kill()
    engine = psutil.Process(read_json(toy.who_file)["pid"])
    before = len(events(toy, "step"))
    page = open_page(start_app(), "/run")
    expect(page.get_by_role("status")).to_have_text("Running")
    until_step(page, before + 4)
    assert engine.is_running()
    assert is_alive(toy)
    assert len(events(toy, "started")) == 1
    steps = [event["step"] for event in events(toy, "step")]
    assert steps == list(range(1, len(steps) + 1)), "no step is missing"
    first = page.locator(".loss-chart .chart-steps span").first
    expect(first).to_have_text("1")  # the charts go back to where it began
    columns = int(
        re.findall(r"(\d+) columns", str(heat_map(page).get_attribute("aria-label")))[0]
    )
    assert columns >= before // 2
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("No run", timeout=60_000)


@pytest.mark.usefixtures("warm_engine")
def test_a_killed_engine_is_lost_within_ten_seconds_and_start_goes_on(
    toy: RunFolder,
    config: dict[str, Any],
    start_app: StartApp,
    open_page: OpenPage,
    tmp_path: Path,
) -> None:
    page = open_page(open_toy(start_app, tmp_path / "work", config), "/run")
    start(page)
    until_step(page, 7)
    psutil.Process(read_json(toy.who_file)["pid"]).kill()
    expect(page.get_by_role("status")).to_have_text("Lost", timeout=10_000)
    expect(page.locator(".run-head .banner")).to_contain_text(
        "it goes on from the last checkpoint"
    )
    last = events(toy, "step")[-1]["step"]
    start(page)
    until_step(page, last + 1)
    assert events(toy, "resumed")[0]["from_step"] % 5 == 0
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("No run", timeout=60_000)


@pytest.mark.usefixtures("warm_engine")
def test_a_run_is_followed_to_its_end(
    toy: RunFolder,
    config: dict[str, Any],
    start_app: StartApp,
    open_page: OpenPage,
    tmp_path: Path,
) -> None:
    samples = [
        {"prompt": "a photo of a cat", "width": 64, "height": 64, "diffusion_steps": 1}
    ]
    config |= {
        "epochs": 6,
        "samples": samples,
        "sample_after": 6,
        "sample_after_unit": "STEP",
    }
    page = open_page(open_toy(start_app, tmp_path / "work", config), "/training")
    start(page)
    expect(page.get_by_role("tab", name="Run")).to_have_attribute(
        "aria-selected", "true"
    )
    expect(page.get_by_role("status")).to_have_text("Finished", timeout=120_000)
    expect(title(page)).to_have_text("Finished after step 12")
    expect(page.locator(".run-files")).to_contain_text(
        str(toy.path / "toy.safetensors")
    )
    expect(page.locator(".samples img").last).to_have_js_property("naturalWidth", 64)
    expect(heat_map(page)).to_have_accessible_name(re.compile("columns"))
    rates = events(toy, "blocks")[-1]["learning_rates"]
    cells = (
        page.get_by_role("table", name="What is really trained")
        .get_by_role("row")
        .nth(1)
        .get_by_role("cell")
    )
    expect(cells).to_have_text(
        ["double 6", re.compile("^[0-9,]+$"), "1", f"{rates['double_block_6']:.2e}"]
    )


# -- for everybody -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_tab_fits_and_can_be_read(
    width: int, made: Made, runs: Path, engine: Engine, shown: Callable[..., Page]
) -> None:
    Made(runs / "failed").train(20).tell(Failed(71, "out of memory"))
    engine(made, "training")
    page = shown(made, width=width, touch=width == 390)
    page.get_by_role("switch", name="Compare with the first").click()
    for scheme, state in product(("light", "dark"), ("Running",)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        expect(page.locator(f".body--{scheme}")).to_be_attached()
        expect(page.get_by_role("status")).to_have_text(state)
        expect(heat_map(page)).to_have_accessible_name(re.compile("columns"))
        assert [faint(page), sideways(page)] == [[], []]
    assert nameless(page) == []
    assert width > 390 or small_targets(page) == []
