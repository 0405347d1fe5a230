"""The Run tab in a real browser: every state of a run, at every width."""

import json
import os
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.apps import App
from support.pages import OpenPage, StartApp
from support.runs import Engine, Made, compare_with, heat_map, no_run_is_alive, title
from support.screens import faint, nameless, sideways, small_targets

from blockrate.run.events import (
    Failed,
    Finished,
    Held,
    Memory,
    Phase,
    Rank,
    Started,
    Stopped,
    Warned,
)
from blockrate.run.folder import is_alive, read_json
from blockrate.run.process import SENTENCES
from blockrate.ui.parts.labels import advice, label_of


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


def test_each_bad_file_has_a_line_of_its_own(
    made: Made, shown: Callable[..., Page]
) -> None:
    cut = "1 caption is cut: raise text_encoder_2_sequence_length, up to 512"
    bad = "2 bad files. Check base_model_name or repair:\n  a.png: x\n  b.png: y"
    page = shown(made.tell(Warned("data", cut), Failed(65, bad)))
    sentence = page.locator(".run-head .dim:visible")
    expect(sentence).to_have_text(re.compile(r"^2 bad files"))
    first, *files = sentence.inner_text().splitlines()
    assert files == ["a.png: x", "b.png: y"]
    # in the words of the interface
    assert first == '2 bad files. Check "Base model" (Model) or repair:'
    expect(page.locator(".run-notes")).to_contain_text(
        '1 caption is cut: raise "T5 sequence length" (Model), up to 512'
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
    expect(
        page.get_by_text("1.5 s/step · 0.667 images/s · 4 min left · loss 0.01667")
    ).to_be_visible()
    expect(page.get_by_text("57 blocks trained")).to_contain_text(
        "the base is 1.00e-04 of 3.00e-04, warming up until step 200."
    )
    # its config has no prompts
    # the words of the headline do not come again
    expect(page.locator(".run-head .dim:visible")).to_have_text(
        re.compile(r"^Since \d{4}-\d\d-\d\d \d\d:\d\d$")
    )
    page.get_by_role("button", name="Sample now").click()
    expect(page.get_by_text("This run has no prompts.")).to_be_visible()
    page.get_by_role("button", name="Save now").click()
    expect(page.get_by_text("A checkpoint comes after this step")).to_be_visible()
    assert [read_json(file)["command"] for file in made.run.commands.iterdir()] == [
        "save"
    ]


def test_the_gpus_of_a_run_are_told_with_the_memory_of_each(
    made: Made, engine: Engine, shown: Callable[..., Page]
) -> None:
    cards = tuple(Rank(rank, "box", "A card with 15.9 GiB", 2**34) for rank in (0, 1))
    made.tell(
        Started("hash", 1, (), None, cards, "FULL"),
        Memory((Held(0, 3 * 2**30), Held(1, 2**31))),
        Phase("training", 60, 200),
    )
    engine(made, "training")
    expect(shown(made).locator(".run-gpus")).to_have_text(
        "2 GPUs, which share the weights: "
        "0 A card with 15.9 GiB on box, 3.0 GiB used at most · "
        "1 A card with 15.9 GiB on box, 2.0 GiB used at most, 567.9 MiB planned for each"
    )


def test_a_run_on_the_processor_alone_says_nothing_of_gpus(
    made: Made, engine: Engine, shown: Callable[..., Page]
) -> None:
    made.tell(Started("hash", 1, (), None, (Rank(0, "box", "the processor"),)))
    engine(made, "training")
    expect(shown(made).locator(".run-gpus")).to_be_hidden()


def test_nothing_is_said_of_the_speed_before_ten_steps(
    runs: Path, engine: Engine, shown: Callable[..., Page]
) -> None:
    young = Made(runs / "young").train(9)
    engine(young, "training")
    expect(
        shown(young).locator(".totals").get_by_text("loss 0.1111", exact=True)
    ).to_be_visible()


def test_stopping_is_told_and_asked_for_once(
    made: Made, engine: Engine, shown: Callable[..., Page]
) -> None:
    engine(made, "training")
    page = shown(made)
    expect(page.get_by_role("status")).to_have_text("Running")
    for _ in range(10):
        page.get_by_role("button", name="Stop", exact=True).click(force=True)
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
    no_run_is_alive(page, "Stopped")
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


@pytest.mark.cases(2)
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


def test_a_run_of_another_config_has_words_for_its_ways_on_and_no_buttons(
    made: Made, shown: Callable[..., Page]
) -> None:
    page = shown(made.tell(Failed(74, "the checkpoints are gone.", ["fresh"])))
    head = page.locator(".run-head")
    expect(head).to_contain_text("The checkpoints are gone. Or start anew")
    expect(head.get_by_role("button", name="Start anew")).to_have_count(0)


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
    no_run_is_alive(page, "Stopped")
    expect(page.get_by_text("Stopped at step 60").filter(visible=True)).to_have_count(1)
    expect(page.locator(".run-head .banner")).to_have_text(
        "Press Start: it goes on from there."
    )
    # and the bottom bar tells of the open config, which is another one
    expect(page.get_by_role("contentinfo")).to_contain_text("1 problem to correct")
    stop = page.get_by_role("button", name="Stop", exact=True)
    expect(stop).to_be_disabled()
    expect(stop).to_have_accessible_description("No run is at work.")
    stop.click(force=True)
    expect(page.locator(".toast")).to_have_text(re.compile("^No run is at work."))


def test_a_run_at_work_is_told_where_its_settings_are_changed(
    made: Made, engine: Engine, shown: Callable[..., Page]
) -> None:
    engine(made, "training")
    page = shown(made)
    expect(page.get_by_role("status")).to_have_text("Running")
    words = page.get_by_text("for the next start").filter(visible=True)
    expect(words).to_have_count(0)
    page.get_by_role("tab", name="Training").click()
    expect(words).to_have_count(1)
    page.get_by_role("switch", name="All settings").filter(visible=True).click()
    page.get_by_role("button", name="Optimizer settings").click()
    expect(page.get_by_role("dialog", name="Optimizer")).to_contain_text(
        "for the next start"
    )
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("A run is at work. Stop it first.")).to_be_visible()
    start = page.get_by_role("button", name="Start", exact=True)
    expect(start).to_be_disabled()
    expect(start).to_have_accessible_description("A run is at work. Stop it first.")


def test_there_is_advice_for_every_way_to_end_badly() -> None:
    assert [code for code in SENTENCES if code and not advice(str(code))] == []
    assert advice("0") == ""
    # what cannot be written need not be a disk that is full
    full = advice("73")
    assert full.startswith("If the disk is full, make room")
    for path in ("workspace_dir", "output_model_destination"):
        assert label_of(path) in full


# -- for everybody -----------------------------------------------------------------------------------------------------


@pytest.mark.cases(2)
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_tab_fits_and_can_be_read(
    width: int, made: Made, runs: Path, engine: Engine, shown: Callable[..., Page]
) -> None:
    Made(runs / "failed").train(20).tell(Failed(71, "out of memory"))
    engine(made, "training")
    page = shown(made, width=width, touch=width == 390)
    compare_with(page, "Step 20")
    for scheme, state in product(("light", "dark"), ("Running",)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        expect(page.locator(f".body--{scheme}")).to_be_attached()
        expect(page.get_by_role("status")).to_have_text(state)
        expect(heat_map(page)).to_have_accessible_name(re.compile("columns"))
        assert [faint(page), sideways(page)] == [[], []]
    assert nameless(page) == []
    assert width > 390 or small_targets(page) == []
