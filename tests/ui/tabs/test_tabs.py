"""The Model, Data and Sampling tabs in a real browser."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from support.apps import PHOTOS, App
from support.image_zoo import picture
from support.screens import faint, nameless, sideways, small_targets

Tab = Callable[..., Page]


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(
    start_app: Callable[..., App], open_page: Callable[..., Page], tmp_path: Path
) -> Tab:
    """Open a tab on a config; in the app's folder lies `photos`: three images, one without a caption."""

    def opened(path: str, config: dict[str, Any], *arguments: str, **view: Any) -> Page:
        work = tmp_path / "work"
        (work / "photos").mkdir(parents=True)
        for name in ("cat.jpg", "cat.txt", "coffee.jpg", "coffee.txt", "rocket.jpg"):
            shutil.copy(PHOTOS / name, work / "photos")
        (work / "mine.json").write_text(
            json.dumps({"base_model_name": "tiny-flux1", **config})
        )
        return open_page(start_app("mine.json", *arguments), path, **view)

    return opened


def card(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title, exact=True)


def choose(page: Page, name: str, option: str) -> None:
    page.get_by_role("combobox", name=name).click()
    page.get_by_role("option", name=option, exact=True).click()


def test_the_model_tab_tells_what_it_found(opened: Tab) -> None:
    page = opened("/model", {})
    check = card(page, "Check")
    expect(check).to_contain_text("19 double and 38 single blocks")
    expect(check).to_contain_text(re.compile(r"Weights [\d.]+ MiB"))
    page.get_by_role("button", name="FLUX.1-schnell").click()
    expect(page.get_by_role("textbox", name="Base model")).to_have_value(
        "black-forest-labs/FLUX.1-schnell"
    )
    expect(check).to_contain_text(
        "FLUX.1-schnell: 19 double and 38 single blocks, 11.9 billion parameters."
    )
    page.get_by_role("textbox", name="Base model").fill("nowhere.safetensors")
    page.get_by_role("textbox", name="Base model").press("Enter")
    expect(check).to_contain_text(
        "nowhere.safetensors: there is no such file or folder"
    )


def test_klein_is_offered_and_block_rates_go_with_it_by_depth(
    opened: Tab, tmp_path: Path
) -> None:
    rates = {"double_block_0": 0.0, "double_block_18": 0.5, "single_block_37": 0.25}
    page = opened(
        "/model",
        {"layer_filter_preset": "blocks", "block_learning_rate_multiplier": rates},
    )
    page.get_by_role("button", name="FLUX.2 klein base 4B").click()
    expect(page.get_by_role("textbox", name="Base model")).to_have_value(
        "black-forest-labs/FLUX.2-klein-base-4B"
    )
    told = "The block rates go over 5 double and 20 single blocks now, by relative"
    expect(page.get_by_text(told)).to_be_visible()
    check = card(page, "Check")
    expect(check).to_contain_text(
        "FLUX.2 klein base 4B: 5 double and 20 single blocks, 3.9 billion parameters."
    )
    expect(page.get_by_role("button", name="distilled")).to_have_count(0)
    page.get_by_role("tab", name="Training").click()
    expect(page.get_by_text("3 of 25 blocks adjusted · 1 frozen")).to_be_visible()
    page.keyboard.press("Control+s")
    file = tmp_path / "work" / "mine.json"
    expect(page.locator(".toast").last).to_contain_text("Saved")
    saved = json.loads(file.read_text())
    assert saved["model_type"] == "FLUX_2"
    assert saved["output_model_format"] == "COMFY_LORA"
    assert saved["block_learning_rate_multiplier"] == {
        "double_block_0": 0.0,
        "double_block_4": 0.5,
        "single_block_19": 0.25,
    }


def test_who_comes_back_to_a_model_finds_its_own_rates_and_settings(
    opened: Tab, tmp_path: Path
) -> None:
    """Fewer blocks keep fewer rates; and a resolution that no model brought along stays."""
    rates = {f"single_block_{number}": number / 40 for number in range(38)}
    page = opened(
        "/model",
        {
            "layer_filter_preset": "blocks",
            "block_learning_rate_multiplier": rates,
            "resolution": "128",
        },
    )
    for name in ("FLUX.2 klein base 4B", "FLUX.1-dev"):
        page.get_by_role("button", name=name, exact=True).click()
    told = "The block rates are those of 19 double and 38 single blocks again."
    expect(page.get_by_text(told)).to_be_visible()
    page.get_by_role("button", name="A small Flux that draws").click()
    expect(page.get_by_text("LoRA rank 4")).to_be_visible()
    page.get_by_role("button", name="FLUX.1-dev", exact=True).click()
    expect(page.get_by_text("LoRA rank 16")).to_be_visible()
    page.keyboard.press("Control+s")
    expect(page.locator(".toast").last).to_contain_text("Saved")
    saved = json.loads((tmp_path / "work" / "mine.json").read_text())
    assert saved["block_learning_rate_multiplier"] == rates


def test_a_model_that_is_typed_leaves_the_rates_and_says_so(
    opened: Tab, tmp_path: Path
) -> None:
    """Rates by number would fit, and mean other blocks."""
    rates = {"double_block_0": 0.5, "single_block_37": 0.25}
    page = opened(
        "/model",
        {"layer_filter_preset": "blocks", "block_learning_rate_multiplier": rates},
    )
    model = page.get_by_role("textbox", name="Base model")
    told = "has 5 double and 20 single blocks now. The block rates stand by number"
    expect(page.get_by_text(told)).to_be_hidden()
    model.fill("tiny-flux2")
    model.press("Enter")
    expect(page.get_by_text(told)).to_be_visible()
    page.get_by_role("button", name="Carry over by depth").click()
    expect(page.get_by_text(told)).to_be_hidden()
    page.keyboard.press("Control+s")
    expect(page.locator(".toast").last).to_contain_text("Saved")
    saved = json.loads((tmp_path / "work" / "mine.json").read_text())
    assert saved["block_learning_rate_multiplier"] == {
        "double_block_0": 0.5,
        "single_block_19": 0.25,
    }


def test_the_model_in_the_box_comes_with_the_settings_it_has_learned_with(
    opened: Tab, tmp_path: Path
) -> None:
    page = opened("/model", {"resolution": "512"})
    check = card(page, "Check")
    model = page.get_by_role("textbox", name="Base model")
    page.get_by_role("button", name="A small Flux that draws pictograms").click()
    expect(model).to_have_value("miniature")
    told = "come: Resolution 128, T5 sequence length 16, Learning rate 0.006,"
    note = page.locator(".model-note").filter(has_text=told)
    expect(note).to_contain_text(
        "With the model before goes what you had set: Resolution 512."
    )
    expect(check).to_contain_text(
        "A small Flux that draws pictograms, in the box: "
        "19 double and 38 single blocks, 11.7 million parameters."
    )
    expect(check).to_contain_text("draws 768 pictograms by their names at 128 x 128")
    expect(check).to_contain_text("30.7 MiB of weights are on this computer.")
    expect(page.get_by_label("T5 sequence length", exact=True)).to_have_value("16")
    page.get_by_role("tab", name="Training").click()
    expect(page.get_by_label("Resolution", exact=True)).to_have_value("128")
    page.get_by_role("tab", name="Model").click()
    page.get_by_role("button", name="FLUX.1-schnell").click()
    expect(model).to_have_value("black-forest-labs/FLUX.1-schnell")
    expect(page.get_by_label("T5 sequence length", exact=True)).to_have_value("256")
    page.get_by_role("tab", name="Training").click()
    # what was set before the model in the box is there again
    expect(page.get_by_label("Resolution", exact=True)).to_have_value("512")
    expect(page.get_by_label("Epochs", exact=True)).to_have_value("100")


def test_the_model_is_looked_at_again_when_one_comes_back(
    opened: Tab, tmp_path: Path
) -> None:
    page = opened(
        "/model", {"base_model_name": "black-forest-labs/FLUX.1-dev", "epochs": 0}
    )
    check = card(page, "Check")
    # told although the epochs are wrong
    expect(check).to_contain_text("No login was found")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_x")
    page.get_by_role("tab", name="Data").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Data")
    page.get_by_role("tab", name="Model").click()
    expect(check).to_contain_text("You are logged in")


def test_a_training_method_brings_its_form_of_output(opened: Tab) -> None:
    page = opened("/model", {"output_model_destination": "out/dog.safetensors"})
    choose(page, "Training method", "Fine-tune")
    expect(page.get_by_role("textbox", name="Output file")).to_have_value("out/dog")
    expect(page.get_by_role("combobox", name="Output format")).to_have_value(
        "Diffusers folder"
    )
    choose(page, "Output format", "One file with BFL's names")
    expect(page.get_by_role("textbox", name="Output file")).to_have_value(
        "out/dog.safetensors"
    )
    choose(page, "Output format", "Diffusers folder")
    expect(page.get_by_role("textbox", name="Output file")).to_have_value("out/dog")
    choose(page, "Training method", "LoRA")
    expect(page.get_by_role("textbox", name="Output file")).to_have_value(
        "out/dog.safetensors"
    )


def test_a_folder_is_added_counted_and_removed(opened: Tab) -> None:
    page = opened("/data", {})
    expect(card(page, "What training sees")).to_contain_text("No images yet")
    page.get_by_role("button", name="Add a folder of images").click()
    picker = page.get_by_role("dialog", name="Choose a folder")
    picker.get_by_role("button", name="photos").click()
    picker.get_by_role("button", name="Choose", exact=True).click()
    concept = card(page, "Concept 1")
    expect(concept).to_contain_text("3 images, 1 without a caption")
    expect(concept.get_by_role("textbox", name="Name")).to_have_value("photos")
    expect(card(page, "What training sees")).to_contain_text(
        "3 images, about 300 steps"
    )
    expect(
        page.get_by_role("list", name="Images by bucket").get_by_role("listitem")
    ).not_to_have_count(0)
    concept.get_by_role("button", name="Remove concept 1").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(concept).to_have_count(0)


@pytest.fixture
def photos(opened: Tab) -> Page:
    """The Data tab with the thumbnails of `photos` unfolded."""
    page = opened("/data", {"concepts": [{"path": "photos"}]})
    page.get_by_role("button", name="Images and captions").click()
    expect(page.locator(".thumbnail")).to_have_count(3)
    return page


def test_references_are_shown_with_their_images_and_missing_ones_are_named(
    opened: Tab, tmp_path: Path
) -> None:
    before = tmp_path / "work" / "before"
    picture(before / "rocket.png")
    page = opened("/data", {"concepts": [{"path": "photos", "references": ["before"]}]})
    concept = card(page, "Concept 1")
    expect(concept.get_by_role("textbox", name="Reference images")).to_have_value(
        "before"
    )
    expect(concept).to_contain_text("2 of 3 images: has no reference of its name")
    page.get_by_role("button", name="Images and captions").click()
    expect(page.locator(".partners img")).to_have_count(1)
    expect(page.locator(".partners", has_text="No reference")).to_have_count(2)
    shown = page.get_by_alt_text("reference of rocket.jpg")
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)")


def test_a_caption_is_edited_beside_its_image(photos: Page, tmp_path: Path) -> None:
    expect(photos.locator(".thumbnail", has_text="No caption")).to_have_count(1)
    assert photos.locator(".thumbnail img").first.evaluate(
        "image => image.decode().then(() => image.naturalWidth)"
    )
    photos.get_by_role("button", name="Edit the caption of rocket.jpg").click()
    editor = photos.get_by_role("dialog", name="Captions")
    box = editor.get_by_role("textbox", name="Caption of rocket.jpg")
    expect(box).to_be_focused()
    box.fill("a <b>rocket</b>")
    photos.keyboard.press("Escape")
    expect(photos.locator(".thumbnail", has_text="a <b>rocket</b>")).to_have_count(1)
    expect(card(photos, "Concept 1")).to_contain_text("3 images, all with a caption")
    assert (
        tmp_path / "work" / "photos" / "rocket.txt"
    ).read_text() == "a <b>rocket</b>\n"


def test_what_will_not_be_learned_stands_below_its_folder(
    photos: Page, tmp_path: Path
) -> None:
    told = card(photos, "Concept 1").locator(".findings")
    expect(told).to_contain_text("1 of 3 images: no caption")
    folder = tmp_path / "work" / "photos"
    (folder / "rocket.CAPTION").write_text("a rocket\n\nin the air")
    card(photos, "What training sees").get_by_role("button", name="Look again").click()
    expect(told).to_contain_text("1 of 3 captions: several lines")
    expect(told).to_contain_text("(rocket.CAPTION)")
    expect(told).not_to_contain_text("no caption")
    choose(photos, "A caption file holds", "one caption")
    expect(told).not_to_contain_text("several lines")
    # paragraphs stay, and the file is the one that is read
    photos.get_by_role("button", name="Edit the caption of rocket.jpg").click()
    box = photos.get_by_role("textbox", name="Caption of rocket.jpg")
    expect(box).to_have_value("a rocket\n\nin the air")
    box.press("Control+End")
    photos.keyboard.type("!")
    photos.get_by_role("button", name="Close", exact=True).click()
    expect(photos.get_by_role("dialog")).to_have_count(0)
    expect(
        photos.locator(".thumbnail", has_text="a rocket in the air!")
    ).to_be_visible()
    assert (folder / "rocket.CAPTION").read_text() == "a rocket\n\nin the air!\n"
    assert not (folder / "rocket.txt").exists()


def test_a_caption_that_another_program_wrote_is_not_lost(
    photos: Page, tmp_path: Path
) -> None:
    file = tmp_path / "work" / "photos" / "cat.txt"
    photos.get_by_role("button", name="Edit the caption of cat.jpg").click()
    photos.get_by_role("textbox", name="Caption of cat.jpg").fill("mine")
    file.write_text("theirs")
    photos.keyboard.press("Escape")
    question = photos.get_by_role("dialog", name="The caption has changed on disk")
    expect(question).to_contain_text("theirs")
    assert file.read_text() == "theirs"
    question.get_by_role("button", name="Keep mine").click()
    expect(photos.locator(".thumbnail", has_text="mine")).to_have_count(1)
    assert file.read_text() == "mine\n"


def test_of_a_folder_outside_the_roots_only_counts_are_told(
    opened: Tab, tmp_path: Path
) -> None:
    picture(tmp_path / "private" / "a.png")
    page = opened(
        "/data",
        {
            "concepts": [
                {"path": "../private"},
                {"path": "photos", "text": {"prompt_source": "filename"}},
            ]
        },
    )
    expect(card(page, "Concept 1")).to_contain_text("1 image, 1 without a caption")
    expect(card(page, "Concept 1")).to_contain_text("1 of 1 images: no caption")
    expect(card(page, "Concept 1")).not_to_contain_text("a.png")
    expect(card(page, "Concept 1")).not_to_contain_text("a.txt and the like")
    for name in ("Concept 1", "Concept 2"):
        card(page, name).get_by_role("button", name="Images and captions").click()
    expect(card(page, "Concept 1")).to_contain_text("--root")
    card(page, "Concept 1").get_by_role("button", name="Change all captions").click()
    expect(page.locator(".toast")).to_contain_text("outside the folders")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(card(page, "Concept 2").locator(".thumbnail")).to_have_count(3)
    # captions from file names are not edited
    expect(page.locator("button.thumbnail")).to_have_count(0)


def test_a_caption_file_outside_the_roots_is_not_shown(
    opened: Tab, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("canary-4711")
    text = {"prompt_source": "concept", "prompt_path": str(secret)}
    page = opened(
        "/data", {"concepts": [{"path": "photos", "text": text}, {"path": "photos"}]}
    )
    (tmp_path / "work" / "photos" / "rocket.txt").symlink_to(secret)
    for name in ("Concept 1", "Concept 2"):
        card(page, name).get_by_role("button", name="Images and captions").click()
    expect(
        card(page, "Concept 1").locator(".thumbnail", has_text="outside the folders")
    ).to_have_count(3)
    expect(card(page, "Concept 2").locator(".thumbnail")).to_have_count(3)
    assert "canary" not in page.content()


def test_images_come_a_page_at_a_time_and_a_broken_one_is_marked(
    opened: Tab, tmp_path: Path, tolerated: list[str]
) -> None:
    tolerated.append("404")
    for number in range(29):
        picture(tmp_path / "work" / "many" / f"{number:02}.png")
    (tmp_path / "work" / "many" / "29.png").write_bytes(b"no image")
    page = opened("/data", {"concepts": [{"path": "many"}]})
    # one count everywhere
    expect(card(page, "Concept 1")).to_contain_text("30 images")
    expect(card(page, "What training sees")).to_contain_text(
        "30 images, 1 of them unreadable"
    )
    expect(page.get_by_role("contentinfo")).to_contain_text("1 unreadable")
    page.get_by_role("button", name="Images and captions").click()
    expect(page.locator(".thumbnail")).to_have_count(24)
    page.get_by_role("button", name="Later images").click()
    expect(page.locator(".thumbnail")).to_have_count(6)
    expect(
        page.get_by_role("button", name="Edit the caption of 29.png")
    ).to_be_visible()
    expect(page.get_by_role("button", name="Later images")).to_be_disabled()
    broken = page.locator(".thumbnail.is-broken")
    broken.scroll_into_view_if_needed()
    expect(broken).to_have_attribute("data-name", "29.png cannot be read")
    expect(broken.locator("img")).to_be_hidden()
    cut = "it => it.scrollWidth > it.clientWidth || it.scrollHeight > it.clientHeight"
    assert not broken.evaluate(cut), "the name is whole"


def test_prompts_are_added_copied_paged_and_deleted(opened: Tab) -> None:
    page = opened(
        "/sampling",
        {
            "samples": [
                {"prompt": f"dog {number}", "seed": number} for number in range(9)
            ]
        },
    )
    page.get_by_role("button", name="Duplicate prompt 9").click()
    expect(page.get_by_role("textbox", name="Prompt 10")).to_have_value("dog 8")
    page.get_by_role("button", name="Add a prompt").click()
    last = page.get_by_role("textbox", name="Prompt 11")
    expect(last).to_have_value("")
    expect(page.get_by_role("textbox", name="Seed 11")).to_have_value("8")
    expect(page.get_by_text("11 to 11 of 11")).to_be_visible()
    last.fill("a new one")
    last.press("Enter")
    page.get_by_role("button", name="Earlier prompts").click()
    page.get_by_role("button", name="Delete prompt 1", exact=True).click()
    expect(page.get_by_role("textbox", name="Prompt 10")).to_have_value("a new one")
    expect(page.get_by_role("textbox", name="Prompt 1", exact=True)).to_have_value(
        "dog 1"
    )


def test_no_prompt_means_no_samples(opened: Tab) -> None:
    page = opened("/sampling", {"samples": [{"prompt": "a dog"}]})
    page.get_by_role("button", name="Delete prompt 1").click()
    expect(page.get_by_text("No samples will be made.")).to_be_visible()


@pytest.mark.cases(1)
@pytest.mark.parametrize(
    ("width", "dark"), [(390, False), (390, True), (1280, True), (1920, False)]
)
def test_the_tabs_are_legible_at_every_width(
    opened: Tab, width: int, dark: bool
) -> None:
    config = {
        "concepts": [{"path": "photos"}, {"path": "gone"}],
        "samples": [{"prompt": "a dog"}],
    }
    page = opened("/model", config, width=width, dark=dark, touch=width < 500)
    expect(card(page, "Check")).to_contain_text("GiB")
    offences = {"Model": judged(page, width)}
    page.get_by_role("tab", name="Data").click()
    for name in ("Images and captions", "More settings"):
        card(page, "Concept 1").get_by_role("button", name=name).click()
    expect(page.locator(".thumbnail")).to_have_count(3)
    expect(card(page, "What training sees")).to_contain_text("3 images")
    offences["Data"] = judged(page, width)
    page.get_by_role("tab", name="Sampling").click()
    expect(page.get_by_role("textbox", name="Prompt 1")).to_be_visible()
    offences["Sampling"] = judged(page, width)
    assert offences == {"Model": [], "Data": [], "Sampling": []}


def judged(page: Page, width: int) -> list[str]:
    return [
        *nameless(page),
        *faint(page),
        *sideways(page),
        *(small_targets(page) if width < 500 else []),
    ]
