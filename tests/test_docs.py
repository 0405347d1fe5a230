"""What the documents and the example photographs promise is so."""

import json
import re
import runpy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.saved_configs import saved_config

import blockrate
from blockrate import BlockLayout
from blockrate.cli.ways_on import WAYS_ON
from blockrate.config.changes import check_changes
from blockrate.config.files import load_config, parse_config
from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, in_words
from blockrate.core.profile import complete
from blockrate.core.selection import parse_selection

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
PHOTOS = ROOT / "examples" / "photos"
LAYOUT = BlockLayout(double=19, single=38)


def code_blocks(language: str) -> list[tuple[str, str]]:
    pattern = rf"(?ms)^```{language}\n(.*?)^```"
    return [
        (file.name, text)
        for file in DOCUMENTS
        for text in re.findall(pattern, file.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_every_link_to_a_file_leads_somewhere(file: Path) -> None:
    links = re.findall(
        r"\]\((?!https?:)([^)#]+)[^)]*\)", file.read_text(encoding="utf-8")
    )
    assert [link for link in links if not (file.parent / link).exists()] == []


@pytest.mark.parametrize(("name", "text"), code_blocks("json"))
def test_every_config_in_the_documents_loads(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    make_plan(load_config(tmp_path / "config.json").config)


def test_every_command_in_the_documents_exists() -> None:
    known = set(re.findall(r'"(\w+)"', (ROOT / "start.py").read_text(encoding="utf-8")))
    used = {
        word
        for file in DOCUMENTS
        for word in re.findall(
            r"(?<!_)start\.py (\w+)", file.read_text(encoding="utf-8")
        )
    }
    assert used - {"COMMAND"} <= known


@pytest.mark.parametrize(
    ("row", "frozen"),
    [
        ("nothing", ""),
        ("the single blocks", "single"),
        ("`double_block_0` to `double_block_9`", "double 0-9"),
        ("the double blocks", "double"),
        (
            "all but `single_block_7`, `12`, `16`, `20`",
            "double; single 0-6,8-11,13-15,17-19,21-37",
        ),
        ("all but the last two single blocks", "double; single 0-35"),
    ],
)
def test_what_freezing_saves_is_what_the_plan_counts(row: str, frozen: str) -> None:
    table = dict(
        re.findall(
            r"(?m)^\| (.+) \| (\d\.\d\d) \|$",
            (ROOT / "docs" / "blocks.md").read_text("utf-8"),
        )
    )
    multipliers = dict.fromkeys(parse_selection(frozen, LAYOUT), 0.0) if frozen else {}
    settings = {
        "layer_filter_preset": "blocks",
        "block_learning_rate_multiplier": multipliers,
    }
    assert (
        table[row]
        == f"{asdict(make_plan(TrainConfig.model_validate(settings)))['step_cost']:.2f}"
    )


def test_what_late_frozen_blocks_save_a_fine_tune_is_what_the_plan_counts() -> None:
    settings = {
        "training_method": "FINE_TUNE",
        "output_model_format": "DIFFUSERS",
        "layer_filter_preset": "blocks",
    }
    multipliers = dict.fromkeys(parse_selection("single", LAYOUT), 0.0)
    plan = make_plan(
        TrainConfig.model_validate(
            {**settings, "block_learning_rate_multiplier": multipliers}
        )
    )
    page = (ROOT / "docs" / "blocks.md").read_text(encoding="utf-8")
    assert f"({plan.step_cost:.2f} of a step with the single blocks frozen)" in page


def test_the_memory_named_for_the_fine_tune_is_what_the_plan_counts() -> None:
    facts = asdict(make_plan(load_config(ROOT / "examples" / "fine_tune.json").config))
    gib = [
        round(sum(facts[name].values()) / 2**30)
        for name in ("memory_bytes", "memory_bytes_all_ones")
    ]
    assert f"needs {gib[0]} GiB instead of {gib[1]}." in (
        ROOT / "docs" / "blocks.md"
    ).read_text(encoding="utf-8")


def test_the_shape_in_the_documents_makes_the_example() -> None:
    names: dict[str, dict[str, float]] = {}
    code = next(
        text
        for name, text in code_blocks("python")
        if name == "blocks.md" and "layer_wise_decay" in text
    )
    exec(code, names)
    example = json.loads(
        (ROOT / "examples" / "layer_wise_decay.json").read_text(encoding="utf-8")
    )
    assert names["values"] == complete(
        example["block_learning_rate_multiplier"], LAYOUT
    )


def test_the_page_of_settings_is_what_its_script_makes_of_the_program() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_config.py"))["document"]()
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == made, "run `python docs/make_config.py` with .venv's Python"


def test_the_page_of_the_run_folder_is_what_its_script_makes_of_the_program() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_run_folder.py"))["document"]()
    page = (ROOT / "docs" / "run_folder.md").read_text(encoding="utf-8")
    assert page == made, "run `python docs/make_run_folder.py` with .venv's Python"


def test_the_page_of_the_library_has_every_public_name_and_no_other() -> None:
    page = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    described = re.findall(r"^\| `(\w+)", page, re.MULTILINE)
    assert sorted(described) == sorted(blockrate.__all__)


def test_pictures_are_small_and_load_nothing_from_elsewhere() -> None:
    pictures = sorted((ROOT / "docs" / "images").glob("*.svg"))
    assert pictures
    for picture in pictures:
        text = picture.read_text(encoding="utf-8")
        assert len(text) < 150_000
        assert "@font-face" not in text
        assert re.findall(r"(?:href=|url\()[\"']?(?!#)([^\"')]+)", text) == []


def test_the_profile_made_for_kohyas_users_trains_the_blocks_they_named() -> None:
    names: dict[str, dict[str, float]] = {}
    exec(
        next(text for name, text in code_blocks("python") if name == "from_kohya.md"),
        names,
    )
    trained = [name for name, value in names["profile"].items() if value]
    singles = [f"single_block_{index}" for index in (7, 12, *range(16, 21))]
    assert trained == [*(f"double_block_{index}" for index in range(6)), *singles]
    assert set(names["profile"].values()) == {0.0, 1.0}


# -- from OneTrainer ---------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "from_onetrainer.md").read_text(encoding="utf-8")
PRODIGY = {
    "optimizer": {"optimizer": "PRODIGY"},
    "block_learning_rate_multiplier": {"double_block_1": 0.3},
}


def said(data: dict[str, Any]) -> list[str]:
    """What a config makes the program say, as the terminal shows it."""
    try:
        loaded = parse_config(data, where="flower.json")
        make_plan(loaded.config)
    except ConfigError as error:
        return f"error: {in_words(error, WAYS_ON)}".splitlines()
    return [f"warning: {warning}" for warning in loaded.warnings]


def _without(data: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}


def refused(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check_changes(TrainConfig(), TrainConfig.model_validate(changes))
    return f"error: {in_words(caught.value, WAYS_ON)}"


def test_the_messages_shown_to_onetrainers_users_are_real() -> None:
    real = [
        *said(
            {
                "masked_training": True,
                "peft_type": "LOKR",
                "text_encoder": {"train": True},
            }
        ),
        *said(
            {
                "dataloader_threads": 8,
                "secrets": {"huggingface_token": "x"},
                "transformer": {"activation_offloading": True},
            }
        ),
        *said({"learning_rat": 1e-4, "layer_filter_presett": "blocks"}),
        *said(_without(saved_config(), "dynamic_timestep_shifting")),
        *said(saved_config(brand_new=False)),
        *said(saved_config(brand_new="FAST")),
        *said(saved_config(model_type="QWEN")),
        *said(PRODIGY),
        refused(lora_rank=8),
        refused(optimizer={"optimizer": "LION"}),
    ]
    shown = [
        line
        for block in re.findall(r"(?ms)^```\n(.*?)^```", PAGE)
        for line in block.splitlines()
    ]
    messages = [line for line in shown if line.startswith(("error:", "warning:", "  "))]
    assert len(messages) == 15
    assert [
        line for line in messages if line not in [text.rstrip() for text in real]
    ] == []


def test_the_table_of_defaults_names_every_default_that_differs() -> None:
    theirs = json.loads(
        (ROOT / "tests" / "config" / "onetrainer_defaults.json").read_text()
    )["config"]
    ours = TrainConfig().model_dump()
    files = {"concepts", "samples", "concept_file_name", "sample_definition_file_name"}
    table = PAGE.partition("## Defaults that differ")[2].partition("## ")[0]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"(?m)^\| (.+?) \|", table))))
    assert {
        name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]
    } - files <= named


# -- photographs -------------------------------------------------------------------------------------------------------


def test_the_photographs_are_free_small_and_of_several_shapes() -> None:
    files = sorted(PHOTOS.glob("*.jpg"))
    sources = (PHOTOS / "SOURCES.md").read_text(encoding="utf-8")
    shapes = set()
    assert 8 <= len(files) <= 12
    for file in files:
        row = re.search(rf"(?m)^\| `{file.name}` \|.*$", sources)
        assert row, f"{file.name} is not named in SOURCES.md"
        assert re.search(r"public domain|CC0 1\.0", row.group())
        with Image.open(file) as image:
            assert max(image.size) <= 512
            shapes.add(round(image.width / image.height, 1))
    assert len(shapes) >= 3
    assert sum(file.stat().st_size for file in files) < 1_500_000


def test_every_photograph_has_a_caption_of_a_whole_sentence() -> None:
    for file in PHOTOS.glob("*.jpg"):
        caption = file.with_suffix(".txt").read_text(encoding="utf-8").strip()
        assert len(caption.split()) >= 15
        assert caption.endswith(".")
    assert {file.stem for file in PHOTOS.glob("*.txt")} == {
        file.stem for file in PHOTOS.glob("*.jpg")
    }
