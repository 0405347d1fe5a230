"""The Draw tab in a real browser, with a real engine: a block on and off, and the two pictures over each other."""

import json
from collections.abc import Mapping
from pathlib import Path

from playwright.sync_api import Page, expect
from support.lives import SPEC, Small
from support.pages import OpenPage, StartApp
from support.screens import faint, nameless, sideways, small_targets

from blockrate.config.drawing import Drawing, Drawn
from blockrate.run.easel import Easel


def lora(folder: Path) -> Path:
    """A LoRA of two blocks that can be seen."""
    import torch

    from blockrate.engine.adapters.file import LoraWeights, save_lora
    from blockrate.engine.adapters.lora import linear_shapes

    weights = {}
    for name, (rows, columns) in linear_shapes(SPEC).items():
        if name.endswith(("0.attn.to_q", "1.attn.to_v")):
            down = torch.linspace(-1, 1, columns)[None]
            up = torch.linspace(1, -1, rows)[:, None]
            weights[name] = LoraWeights(down, up, 1.0)
    file = folder / "seen.safetensors"
    save_lora(
        file,
        weights,
        architecture=SPEC.architecture,
        file_format="DIFFUSERS_LORA",
        dtype=torch.float32,
        metadata={},
    )
    return file


def draw(page: Page) -> None:
    page.get_by_role("button", name="Draw", exact=True).click()


def test_a_block_is_switched_off_and_the_two_pictures_are_compared(  # noqa: PLR0915 (one model for all of it)
    small: Small,
    tmp_path: Path,
    start_app: StartApp,
    open_page: OpenPage,
    warm_engine: Mapping[str, str],
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    file = lora(work)
    sample = {"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 2}
    config = small.config(work / "run", samples=[sample])
    (work / "mine.json").write_text(config.model_dump_json())
    page = open_page(start_app("mine.json"), "/draw")
    where = page.get_by_role("textbox", name="Run, checkpoint, LoRA file or model")
    where.fill("gone.safetensors")
    where.press("Enter")
    expect(page.get_by_text("there is no such file or folder")).to_be_visible()
    where.fill(str(file))
    where.press("Enter")
    expect(page.get_by_text("seen.safetensors on")).to_be_visible()
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value(
        "a cat"
    )
    expect(page.get_by_label("Negative prompt")).to_be_hidden()
    strength = page.get_by_label("Strength")
    strength.fill("9")
    strength.press("Tab")
    draw(page)
    expect(page.get_by_role("alert").filter(has_text="less than")).to_be_visible()
    strength.fill("1")
    strength.press("Tab")
    draw(page)
    pictures = page.locator(".drawn img")
    expect(pictures).to_have_count(1, timeout=120_000)
    fader = page.get_by_role("slider", name="single_block_1")
    fader.focus()
    page.keyboard.press("Home")
    expect(fader).to_have_attribute("aria-valuetext", "off")
    draw(page)
    expect(pictures).to_have_count(2, timeout=120_000)
    expect(
        page.get_by_text("The model is loaded for the next picture.")
    ).to_be_visible()
    off, on = Easel(work / "workspace" / "playground").all_drawn()
    assert off.drawing.block_scale == {"single_block_1": 0.0}
    assert on.drawing.block_scale == {}
    assert on.drawing.lora == str(file)
    for place in (0, 1):
        page.get_by_role("checkbox", name="Compare").nth(place).click()
    page.get_by_role("button", name="Compare the two").click()
    view = page.get_by_role("dialog", name="Picture")
    expect(view.get_by_role("img")).to_have_count(2)
    expect(view.get_by_text("single 1 off")).to_be_visible()
    page.keyboard.press("Escape")
    expect(view).to_have_count(0)
    page.get_by_role("button", name="Use its settings").nth(1).click()
    expect(fader).to_have_attribute("aria-valuetext", "1.00")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        expect(page.locator(f".body--{scheme}")).to_be_attached()
        assert [faint(page), sideways(page)] == [[], []]
    assert nameless(page) == []
    page.get_by_role("button", name="Let go of the model").click()
    expect(page.get_by_text("No model is loaded.")).to_be_visible(timeout=30_000)


def test_the_settings_of_a_picture_bring_back_what_it_was_drawn_from(
    small: Small, tmp_path: Path, start_app: StartApp, open_page: OpenPage
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    file = lora(work)
    sample = {"prompt": "a cat", "references": ["gone.png"]}
    config = small.config(work / "run", samples=[sample])
    (work / "mine.json").write_text(config.model_dump_json())
    easel = Easel(work / "workspace" / "playground")
    easel.pictures.mkdir(parents=True)
    model = config.base_model_name
    for number, (by, from_) in enumerate(((model, ""), ("elsewhere", str(file)))):
        drawing = Drawing(prompt=f"picture {number}", lora=from_)
        easel.answer(Drawn(id=f"0{number}", drawing=drawing, model=by, problem="no"))
    page = open_page(start_app("mine.json"), "/draw")
    where = page.get_by_role("textbox", name="Run, checkpoint, LoRA file or model")
    prompt = page.get_by_role("textbox", name="Prompt", exact=True)
    expect(prompt).to_have_value("a cat")
    draw(page)
    # the images of the sample go with it, and this model takes none
    expect(
        page.get_by_role("alert").filter(has_text="takes no reference images")
    ).to_be_visible()
    where.fill(str(file))
    where.press("Enter")
    expect(page.get_by_text("seen.safetensors on")).to_be_visible()
    use = page.get_by_role("button", name="Use its settings")
    use.nth(1).click()
    expect(prompt).to_have_value("picture 0")
    expect(where).to_have_value("")
    # it was made from none; a folder of something else keeps it from being drawn here
    easel.run.options_file.write_text("{}")
    draw(page)
    expect(page.get_by_role("alert").filter(has_text="something else")).to_be_visible()
    use.nth(0).click()
    expect(prompt).to_have_value("picture 1")
    expect(page.get_by_text("drawn by elsewhere: open its config")).to_be_visible()


def test_the_tab_fits_a_phone(
    small: Small, tmp_path: Path, start_app: StartApp, open_page: OpenPage
) -> None:
    (tmp_path / "work").mkdir()
    config = {"base_model_name": str(small.folder / "model")}
    (tmp_path / "work" / "mine.json").write_text(json.dumps(config))
    page = open_page(start_app("mine.json"), "/draw", width=390, touch=True)
    expect(page.get_by_text("No pictures yet.")).to_be_visible()
    assert [faint(page), sideways(page), small_targets(page)] == [[], [], []]
