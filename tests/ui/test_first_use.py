"""The six steps of a first use, in a real browser, up to the rates that the running optimizer holds."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect
from support.apps import App, copy_photos
from support.event_lines import event_lines
from support.pages import OpenPage, StartApp
from support.runs import compare_with

from blockrate.core.blocks import BlockLayout

FLUX = BlockLayout(19, 38)
KEY = "block_learning_rate_multiplier"
RATE = 2e-3
CANARY = "hf_canary4711"  # a secret that must not get into any file
FULL = {"weight_dtype": "FLOAT_32"}
SMALL: dict[str, Any] = {
    "base_model_name": "",
    "concepts": [{"path": "photos"}],
    "workspace_dir": "run",
    "cache_dir": "cache",
    "output_model_destination": "run/mine.safetensors",
    "resolution": "64",
    "epochs": 1,
    "batch_size": 5,
    "train_dtype": "FLOAT_32",
    "transformer": {**FULL, "gradient_checkpointing": False},
    **dict.fromkeys(("text_encoder", "text_encoder_2", "vae"), FULL),
    "text_encoder_2_sequence_length": 16,
    "learning_rate": RATE,
    "learning_rate_scheduler": "CONSTANT",
    "learning_rate_warmup_steps": 0,
    "optimizer": {"optimizer": "ADAMW"},
    "lora_rank": 2,
    "lora_alpha": 2.0,
    "layer_filter_preset": "attn-only",
    "tensorboard": False,
    "telemetry_every": 1,
}


@pytest.mark.usefixtures("warm_engine")
def test_the_six_steps_of_a_first_use(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path
) -> None:
    app = prepared(start_app, tmp_path, SMALL, HF_TOKEN=CANARY, WANDB_API_KEY=CANARY)
    page = open_page(app)
    dots = page.get_by_role("button", name="Layer Filter settings")

    # load a Flux model
    page.get_by_role("tab", name="Training").click()
    expect(dots).to_have_attribute("aria-disabled", "true")
    page.get_by_role("tab", name="Model").click()
    page.get_by_role("button", name="FLUX.1 of toy width").click()
    expect(page.get_by_label("Base model", exact=True)).to_have_value("tiny-flux1")

    # select "blocks" in the Layer Filter of the Training tab
    page.get_by_role("tab", name="Training").click()
    expect(dots).to_have_accessible_description('Choose the "blocks" filter')
    page.get_by_role("combobox", name="Layer Filter", exact=True).click()
    page.get_by_role("option", name="blocks", exact=True).click()

    # click ... next to it
    dots.click()
    window = page.get_by_role("dialog", name="Block Learning Rate")

    # adjust sliders
    drawn = draw(page, window)

    # OK
    window.get_by_role("button", name="OK").click()
    expect(window).to_have_count(0)

    # Start training
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Finished", timeout=120_000)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("img", name="Not saved")).to_be_hidden()

    assert (
        saved(app.folder / "mine.json")
        == saved(app.folder / "run" / "config.json")
        == drawn
    )
    in_the_optimizer(app.folder / "run", drawn, RATE)
    assert (app.folder / "run" / "mine.safetensors").stat().st_size > 1000
    assert {
        "optimizer.safetensors",
        "state.json",
        "manifest.json",
    } <= no_file_tells_a_secret(app)


@pytest.mark.usefixtures("warm_engine")
def test_who_has_never_seen_it_gets_from_the_demo_to_a_lora(
    start_app: StartApp, open_page: OpenPage, tmp_path: Path
) -> None:
    app = prepared(start_app, tmp_path, HF_TOKEN=CANARY)
    page = open_page(app)
    page.get_by_role("button", name="Open", exact=True).click()
    page.get_by_role("button", name="demo", exact=True).click()
    page.get_by_role("tab", name="Training").click()
    page.get_by_label("Epochs", exact=True).fill("1")
    page.get_by_role("button", name="Layer Filter settings").click()
    window = page.get_by_role("dialog", name="Block Learning Rate")
    window.get_by_role("button", name="Reset All to 1.0").click()
    drawn = draw(page, window)
    window.get_by_role("button", name="OK").click()
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Finished", timeout=120_000)

    run = app.folder / "workspace" / "demo"
    assert saved(run / "config.json") == drawn
    in_the_optimizer(run, drawn, 6e-3)
    expect(page.get_by_text("52 of 57 blocks trained")).to_contain_text(
        "Double 0-4 frozen."
    )
    expect(page.get_by_text(str(run / "demo.safetensors"))).to_be_visible()
    assert (run / "demo.safetensors").stat().st_size > 1000
    # what it drew before it learned can be laid beside what it draws now
    compare_with(page, "Step 0")
    assert {
        "demo.safetensors",
        "step-00000000-0-turtle.png",
        "step-00000003-0-turtle.png",
    } <= no_file_tells_a_secret(app)


def prepared(
    start_app: StartApp,
    tmp_path: Path,
    config: dict[str, Any] | None = None,
    **secrets: str,
) -> App:
    """An app whose folder holds photographs; with a config it opens that."""
    work = tmp_path / "work"
    work.mkdir()
    copy_photos(work / "examples" / "photos")
    copy_photos(work / "photos")
    if config is None:
        return start_app(**secrets)
    (work / "mine.json").write_text(json.dumps(config))
    return start_app("mine.json", **secrets)


def no_file_tells_a_secret(app: App) -> set[str]:
    """Look for secrets in every file of run, cache, memory and output; return the names of those files."""
    token = parse_qs(urlsplit(app.url).query)["token"][0]
    contents = {
        file: file.read_bytes()
        for file in app.folder.parent.rglob("*")
        if file.is_file()
    }
    names = {file.name for file in contents}
    assert {
        "events.jsonl",
        "log.txt",
        "config.json",
        f"session-{urlsplit(app.url).port}.key",
        "preferences.json",
        "app-0.err",
    } <= names
    assert [
        file for file, content in contents.items() if CANARY.encode() in content
    ] == []
    assert [
        file for file, content in contents.items() if token.encode() in content
    ] == [app.output.with_suffix(".out")]
    return names


def draw(page: Page, window: Locator) -> dict[str, float]:
    """Paint a slope over some single blocks, freeze the first double blocks, set one by the keyboard."""
    for begin, end in (
        (("single_block_10", 0.9), ("single_block_20", 0.2)),
        (("double_block_0", 0.005), ("double_block_4", 0.005)),
    ):
        page.mouse.move(*middle(window, *begin))
        page.mouse.down()
        page.mouse.move(*middle(window, *end), steps=30)
        page.mouse.up()
    window.get_by_role("slider", name="single_block_37", exact=True).focus()
    page.keyboard.type("0.35")
    sliders = window.get_by_role("slider").evaluate_all(
        "all => all.map(e => [e.ariaLabel, Number(e.ariaValueNow)])"
    )
    drawn = {name: value for name, value in sliders if value != 1.0}
    slope = [drawn[f"single_block_{number}"] for number in range(10, 21)]
    assert slope == sorted(slope, reverse=True)
    assert slope[0] - slope[-1] > 0.6
    assert [drawn[f"double_block_{number}"] for number in range(5)] == [0.0] * 5
    assert drawn["single_block_37"] == 0.35
    assert len(drawn) == 11 + 5 + 1
    return drawn


def middle(window: Locator, name: str, value: float) -> tuple[float, float]:
    """Where the fader of a block has a value."""
    box = window.get_by_role("slider", name=name, exact=True).bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] * (1 - value)


def saved(config: Path) -> object:
    return json.loads(config.read_text())[KEY]


def in_the_optimizer(run: Path, drawn: dict[str, float], rate: float) -> None:
    """The groups the optimizer was built with, and the rates it held at every step, are what was drawn."""
    events = run / "events.jsonl"
    expected = {name: rate * drawn.get(name, 1.0) for name in FLUX.names}
    trained = {name: value for name, value in expected.items() if value}
    (started,) = event_lines(events, "started")
    groups = {
        group["name"]: group["learning_rate"]
        for group in started["groups"]
        if group["parameters"]
    }
    assert {name: value for name, value in groups.items() if value} == pytest.approx(
        trained, rel=1e-9
    )
    held = [event["learning_rates"] for event in event_lines(events, "blocks")]
    assert held
    for rates in held:
        assert {name: value for name, value in rates.items() if value} == pytest.approx(
            trained, rel=1e-9
        )
