"""The Model, Data and Sampling tabs: what they find on disk, told without a browser, and what a hand does in one."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from support.apps import PHOTOS, App
from support.screens import faint, nameless, sideways, small_targets

from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import FileError
from blockrate.dataset.survey import Survey, image_size, survey
from blockrate.models.files import PARTS
from blockrate.models.savings import Memory
from blockrate.ui.tabs import model_check
from blockrate.ui.tabs.captions import read_text, save_text
from blockrate.ui.tabs.model_check import (
    Card,
    Finding,
    card_of,
    check,
    memory_finding,
    method_change,
)

GIB = 2**30
Tab = Callable[..., Page]


def picture(path: Path, width: int = 64, height: int = 64, **saved: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), "teal").save(path, **saved)
    return path


# -- what is in the folders --------------------------------------------------------------------------------------------


def surveyed(*concepts: dict[str, Any], **settings: Any) -> list[Survey]:
    return list(survey(TrainConfig(concepts=list(concepts), **settings)))


def test_images_are_counted_first_and_measured_after(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "one" / f"{number}.png")
    (tmp_path / "one" / "0.txt").write_text("a dog")
    stages = surveyed(
        {"path": str(tmp_path / "one")},
        {"path": str(tmp_path / "gone"), "enabled": False},
    )
    assert [
        (len(stage.folders), stage.done, stage.steps is None) for stage in stages
    ] == [
        (1, 0, True),
        (2, 0, True),
        (2, 3, True),
        (2, 3, False),
    ]
    assert [(len(folder.images), folder.bare) for folder in stages[-1].folders] == [
        (3, 2),
        (0, 0),
    ]
    assert (
        stages[-1].folders[1].problem
        == f"'{tmp_path / 'gone'}' is not a folder. Set it to a folder of images."
    )


def test_a_large_folder_is_measured_in_portions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockrate.dataset.survey._AT_ONCE", 2)
    for number in range(5):
        picture(tmp_path / f"{number}.png")
    assert [stage.done for stage in surveyed({"path": str(tmp_path)})] == [
        0,
        2,
        4,
        5,
        5,
    ]


def test_what_is_no_image_is_counted_as_such_and_validation_images_train_nothing(
    tmp_path: Path,
) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    held = {"path": str(tmp_path), "type": "VALIDATION"}
    last = surveyed({"path": str(tmp_path)}, held, resolution="64", epochs=7)[-1]
    assert (last.all, last.unreadable, last.steps) == (2, 1, 7)


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 1, "epochs": 3},
        {"batch_size": 3, "epochs": 4, "gradient_accumulation_steps": 2},
        {"batch_size": 2, "epochs": 2, "aspect_ratio_bucketing": False},
    ],
)
def test_steps_and_buckets_are_those_that_training_comes_to(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    from blockrate.engine.data.batches import Schedule, item_buckets
    from blockrate.engine.data.concepts import find_items

    sizes = [(64, 48), (48, 64), (64, 64), (80, 40), (64, 60), (30, 64), (64, 64)]
    for number, size in enumerate(sizes):
        picture(tmp_path / "images" / f"{number}.png", *size)
    picture(tmp_path / "more" / "a.png")
    concepts = [
        {"path": str(tmp_path / "images")},
        {"path": str(tmp_path / "more"), "balancing": 5.0},
    ]
    config = TrainConfig(
        concepts=concepts,
        resolution="128",
        cache_dir=str(tmp_path / "cache"),
        **settings,
    )
    items = find_items(config, lambda text: None, lambda done, total: None)
    *_, last = survey(config)
    assert last.steps == Schedule(config, items).number_of_steps
    bucket_of = [item_buckets(config, item)[0] for item in items]
    assert last.buckets == {bucket: bucket_of.count(bucket) for bucket in bucket_of}


def test_a_resolution_that_is_none_leaves_the_counts(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    wrong = {"enable_resolution_override": True, "resolution_override": "large"}
    assert surveyed({"path": str(tmp_path), "image": wrong})[-1].all == 1


def test_a_photograph_that_lies_on_its_side_is_measured_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = picture(tmp_path / "a.jpg", 60, 40, exif=exif)
    assert image_size(file) == (40, 60)
    assert image_size(picture(tmp_path / "b.jpg", 60, 40)) == (60, 40)


def test_an_image_that_another_thread_is_reading_is_not_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = picture(tmp_path / "a.png", 60, 40)
    usual = Image.open
    sizes = []

    def in_the_middle(*arguments: Any, **named: Any) -> Image.Image:
        monkeypatch.undo()
        sizes.append(image_size(file))
        return usual(*arguments, **named)

    monkeypatch.setattr("PIL.Image.open", in_the_middle)
    assert [image_size(file), *sizes] == [(60, 40), (60, 40)]


# -- captions ----------------------------------------------------------------------------------------------------------


def test_a_caption_is_written_only_over_what_was_read(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    assert read_text(file) == ("", None)
    assert save_text(file, " a dog \n\nanother", None)
    text, was = read_text(file)
    assert (text, was) == ("a dog\nanother", b"a dog\nanother\n")
    file.write_bytes(b"of another program")
    assert not save_text(file, "mine", was)
    assert file.read_bytes() == b"of another program"


def test_a_caption_that_is_no_text_is_not_edited(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match="not UTF-8"):
        read_text(tmp_path / "a.txt")


# -- the model ---------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and nobody logged in."""
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(model_check, "nvidia_cards", tuple)
    return tmp_path / "hf" / "hub"


def findings(**settings: Any) -> list[Finding]:
    ((found, _, _),) = check((TrainConfig(**settings), None))
    return found


def test_a_whole_model_is_found_and_weighed(tiny_flux: Path) -> None:
    blocks, weights = findings(base_model_name=str(tiny_flux))
    assert blocks == Finding(
        "Fine",
        "FLUX.1 with guidance: 19 double and 38 single blocks, 5.3 million parameters.",
    )
    assert weights.kind == "Fine"
    assert re.fullmatch(r"0\.\d GB of weights are on this computer\.", weights.text)


def test_what_is_missing_is_named_file_by_file(tiny_flux: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_flux, tmp_path / "copy")
    (copy / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(copy / "tokenizer_2")
    missing = [
        finding.text
        for finding in findings(base_model_name=str(copy))
        if finding.kind == "Problem"
    ]
    assert len(missing) == 1
    assert f"{copy}: vae (diffusion_pytorch_model.safetensors)" in missing[0]
    assert f"{copy}: tokenizer_2" in missing[0]


def test_a_hub_model_is_told_apart_by_what_is_in_its_cache(
    tiny_flux: Path, hub: Path
) -> None:
    absent = findings()
    assert [finding.kind for finding in absent] == ["Fine", "Note", "Problem"]
    assert (
        "The first start downloads it from black-forest-labs/FLUX.1-dev"
        in absent[1].text
    )
    assert (
        "https://huggingface.co/black-forest-labs/FLUX.1-dev. No login was found"
        in absent[2].text
    )
    model = hub / "models--black-forest-labs--FLUX.1-dev"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("abc")
    shutil.copytree(tiny_flux, model / "snapshots" / "abc")
    assert [finding.kind for finding in findings()] == ["Fine", "Fine"]
    shutil.rmtree(model / "snapshots" / "abc" / "text_encoder_2")
    assert "Not on this computer yet: text_encoder_2." in findings()[2].text


def test_a_login_is_told_and_its_token_is_not(hub: Path) -> None:
    hub.parent.mkdir()
    (hub.parent / "token").write_text("hf_secret")
    told = findings()
    assert told[-1].kind == "Note"
    assert told[-1].text.endswith("You are logged in.")
    assert not any("hf_secret" in finding.text for finding in told)


def test_the_toy_needs_no_files_and_a_folder_of_its_name_does(
    tiny_flux: Path, tmp_path: Path
) -> None:
    assert [finding.kind for finding in findings(base_model_name="tiny-flux1")] == [
        "Fine",
        "Fine",
    ]
    copy = tmp_path / "tiny-flux1"
    shutil.copytree(tiny_flux / "transformer", copy / "transformer")
    absent = findings(base_model_name=str(copy))[-1]
    assert all(part in absent.text for part in PARTS if part != "transformer")


@pytest.mark.parametrize(
    "settings",
    [
        {"base_model_name": "no/such/folder/at/all"},
        {"base_model_name": "x" * 5000},
        {"base_model_name": "tiny-flux1", "vae": {"model_name": __file__}},
    ],
)
def test_what_cannot_be_used_is_one_sentence(settings: dict[str, Any]) -> None:
    (finding,) = findings(**settings)
    assert finding.kind == "Problem"


def test_the_memory_is_compared_with_the_card() -> None:
    card = Card("GPU", 24 * GIB)
    kinds = [
        memory_finding(Memory(size * GIB, 0, 0, GIB), card).kind
        for size in (12, 21, 25)
    ]
    assert kinds == ["Fine", "Note", "Problem"]
    assert memory_finding(Memory(12 * GIB, 0, 0, GIB), card).text.startswith(
        "Needs 13.0 of 24.0 GiB"
    )


def test_the_device_of_the_config_decides_the_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    two = (Card("first", 1), Card("second", 2))
    texts = [
        card_of(device, two).text
        for device in (None, "cuda", "cuda:1", "cuda:7", "cpu")
    ]
    assert texts[:3] == ["first", "first", "second"]
    assert texts[3:] == [
        "No NVIDIA card found: training on the CPU",
        "Training on the CPU",
    ]
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert card_of(None, ()).text.startswith("Apple's GPU")


@pytest.mark.parametrize(
    ("said", "cards"),
    [
        (
            "RTX, 4090, 24564\nOther, 8192\n",
            (Card("RTX, 4090", 24564 * 2**20), Card("Other", 8 * GIB)),
        ),
        ("NVIDIA-SMI has failed\n", ()),
        ("", ()),
    ],
)
def test_nvidia_smi_is_read_or_not_believed(
    said: str,
    cards: tuple[Card, ...],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.undo()
    done = subprocess.CompletedProcess([], 0, stdout=said)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    model_check.nvidia_cards.cache_clear()
    request.addfinalizer(model_check.nvidia_cards.cache_clear)
    assert model_check.nvidia_cards() == cards


def test_the_check_carries_the_plan_s_memory() -> None:
    config = TrainConfig(base_model_name="tiny-flux1")
    plan = make_plan(config)
    ((_, memory, card),) = check((config, plan))
    assert memory == plan.memory_bytes
    assert card.total > 0


@pytest.mark.parametrize("destination", ["models/my.lora", "models/model"])
def test_a_method_and_back_again_is_the_same_destination(destination: str) -> None:
    file = f"{destination}.safetensors"
    folder = method_change("FINE_TUNE", file)
    assert (folder["output_model_format"], folder["output_model_destination"]) == (
        "DIFFUSERS",
        destination,
    )
    back = method_change("LORA", destination)
    assert (back["output_model_format"], back["output_model_destination"]) == (
        "DIFFUSERS_LORA",
        file,
    )


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
    expect(check).to_contain_text(re.compile(r"Weights 0\.\d\d GiB"))
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


def test_a_caption_is_edited_beside_its_image(photos: Page, tmp_path: Path) -> None:
    expect(photos.locator(".thumbnail", has_text="No caption")).to_have_count(1)
    assert photos.locator(".thumbnail img").first.evaluate(
        "image => image.decode().then(() => image.naturalWidth)"
    )
    photos.get_by_role("button", name="Edit the caption of rocket.jpg").click()
    editor = photos.get_by_role("dialog", name="Caption of rocket.jpg")
    expect(editor.get_by_role("textbox", name="Caption")).to_be_focused()
    editor.get_by_role("textbox", name="Caption").fill("a <b>rocket</b>")
    editor.get_by_role("button", name="Save caption").click()
    expect(photos.locator(".thumbnail", has_text="a <b>rocket</b>")).to_have_count(1)
    expect(card(photos, "Concept 1")).to_contain_text("3 images, all with a caption")
    assert (
        tmp_path / "work" / "photos" / "rocket.txt"
    ).read_text() == "a <b>rocket</b>\n"


def test_a_caption_that_another_program_wrote_is_not_lost(
    photos: Page, tmp_path: Path
) -> None:
    file = tmp_path / "work" / "photos" / "cat.txt"
    photos.get_by_role("button", name="Edit the caption of cat.jpg").click()
    box = photos.get_by_role("textbox", name="Caption", exact=True)
    box.fill("mine")
    file.write_text("theirs")
    photos.get_by_role("button", name="Save caption").click()
    photos.get_by_role("button", name="Keep editing").click()
    assert file.read_text() == "theirs"
    expect(box).to_have_value("mine")
    photos.get_by_role("button", name="Save caption").click()
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
    for name in ("Concept 1", "Concept 2"):
        card(page, name).get_by_role("button", name="Images and captions").click()
    expect(card(page, "Concept 1")).to_contain_text("--root")
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


def test_images_come_a_page_at_a_time(opened: Tab, tmp_path: Path) -> None:
    for number in range(30):
        picture(tmp_path / "work" / "many" / f"{number:02}.png")
    page = opened("/data", {"concepts": [{"path": "many"}]})
    page.get_by_role("button", name="Images and captions").click()
    expect(page.locator(".thumbnail")).to_have_count(24)
    page.get_by_role("button", name="Later images").click()
    expect(page.locator(".thumbnail")).to_have_count(6)
    expect(
        page.get_by_role("button", name="Edit the caption of 29.png")
    ).to_be_visible()
    expect(page.get_by_role("button", name="Later images")).to_be_disabled()


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
