"""The check of the model: what is found, what is missing, and whether it fits the card."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.models.cards import Card
from blockrate.models.families import DEFAULT_FAMILY
from blockrate.models.files import parts_of
from blockrate.models.savings import Memory
from blockrate.run.folder import RunFolder
from blockrate.run.main_memory import MainMemory
from blockrate.run.places import Source
from blockrate.ui.tabs import model_check
from blockrate.ui.tabs.model_check import (
    Device,
    Finding,
    check,
    device_for,
    device_of,
    form_change,
    main_memory_finding,
    memory_finding,
    method_change,
)

GIB = 2**30


def findings(**settings: Any) -> list[Finding]:
    found = check(TrainConfig(**settings), None).findings
    return found


def test_a_whole_model_is_found_and_weighed(tiny_flux: Path) -> None:
    blocks, weights = findings(base_model_name=str(tiny_flux))
    assert blocks == Finding(
        "Fine",
        "FLUX.1 with guidance: 19 double and 38 single blocks, 5.3 million parameters.",
    )
    assert weights.kind == "Fine"
    assert re.fullmatch(r"[\d.]+ MiB of weights are on this computer\.", weights.text)


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
    others = parts_of(DEFAULT_FAMILY.architecture)[1:]
    assert all(part in absent.text for part in others)


@pytest.mark.parametrize(
    "settings",
    [
        {"base_model_name": "no/such/folder/at/all"},
        {"base_model_name": "x" * 4000},
        {"base_model_name": "tiny-flux1", "vae": {"model_name": __file__}},
    ],
)
def test_what_cannot_be_used_is_one_sentence(settings: dict[str, Any]) -> None:
    (finding,) = findings(**settings)
    assert finding.kind == "Problem"


def test_what_only_the_user_knows_is_a_question_with_its_answers(
    tiny_flux: Path, tmp_path: Path
) -> None:
    [weights] = (tiny_flux / "transformer").glob("*.safetensors")
    file = Path(shutil.copy(weights, tmp_path / "mine.safetensors"))
    [question] = [one for one in findings(base_model_name=str(file)) if one.choices]
    assert (question.kind, question.field) == ("Problem", "model_variant")
    assert question.choices == ("DEV", "KONTEXT")
    answered = findings(base_model_name=str(file), model_variant="DEV")
    assert not any(one.choices for one in answered)


def test_the_memory_is_compared_with_the_card() -> None:
    card = Device("GPU", 24 * GIB, 24 * GIB)
    kinds = [
        memory_finding(Memory(size * GIB, 0, 0, GIB), card).kind
        for size in (12, 21, 25)
    ]
    assert kinds == ["Fine", "Note", "Problem"]
    assert memory_finding(Memory(12 * GIB, 0, 0, GIB), card).text.startswith(
        "Needs 13.0 of 24.0 GiB"
    )


def test_what_other_programs_have_taken_of_the_card_is_told() -> None:
    card = Device("GPU", 24 * GIB, 12 * GIB)
    finding = memory_finding(Memory(12 * GIB, 0, 0, GIB), card)
    assert finding.kind == "Note"
    assert "12.0 GiB are free now" in finding.text


def test_the_device_of_the_config_decides_the_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    two = (Card("first", 1, 1, 1.0), Card("second", 2, 2, 1.0))
    texts = [
        device_of(device, two).text
        for device in (None, "cuda", "cuda:1", "cuda:7", "cpu")
    ]
    assert texts[:3] == ["first", "first", "second"]
    assert texts[3:] == [
        "No NVIDIA card found: training on the CPU",
        "Training on the CPU",
    ]
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert device_of(None, ()).text.startswith("Apple's GPU")


def test_a_torch_for_amd_means_a_card_that_only_the_training_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_check, "version", lambda name: "2.13.0+rocm7.2")
    card = device_of(None, ())
    assert card.text.startswith("An AMD card")
    finding = memory_finding(Memory(12 * GIB, 0, 0, GIB), card)
    assert finding.kind == "Note"
    assert finding.text.startswith("Needs 13.0 GiB, and up to 10 % more. The training")
    assert device_of("cpu", ()).text == "Training on the CPU"


def test_of_several_cards_the_fullest_is_compared() -> None:
    cards = (Card("a", 24 * GIB, 20 * GIB, 1.0), Card("b", 24 * GIB, 3 * GIB, 1.0))
    several = TrainConfig(multi_gpu=True, device_indexes="0,1", batch_size=2)
    found = device_for(several, cards)
    assert (found.text, found.free) == ("GPU 1 (b) has least free of 2", 3 * GIB)
    assert device_for(TrainConfig(), cards).text == "a"
    assert device_for(None, cards).text == "a"


@pytest.mark.parametrize(
    ("free", "total", "kinds"),
    [(22, 24, []), (18, 24, ["Note"]), (15, 16, ["Problem"])],
)
def test_text_encoders_without_room_are_told_of(
    free: int, total: int, kinds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = (Card("GPU", total * GIB, free * GIB, 1.0),)
    monkeypatch.setattr(model_check, "nvidia_cards", lambda: cards)
    config = TrainConfig.model_validate(
        {"text_encoder_2": {"weight_dtype": "FLOAT_32"}}
    )
    told = [
        one
        for one in check(config, make_plan(config)).findings
        if one.text.startswith("Encoding captions")
    ]
    assert [one.kind for one in told] == kinds
    for one in told:
        assert f"GPU has {free}.0 GiB free: set " in one.text
        assert "T5" in one.text


@pytest.mark.parametrize(
    ("said", "sizes"),
    [
        (
            "RTX, 4090, 24564, 23000\nOther, 8192, 8000\n",
            (
                ("RTX, 4090", 24564 * 2**20, 23000 * 2**20),
                ("Other", 8 * GIB, 8000 * 2**20),
            ),
        ),
        ("NVIDIA-SMI has failed\n", ()),
        ("RTX 4090, 24564, [N/A]\n", ()),
        ("", ()),
    ],
)
def test_nvidia_smi_is_read_or_not_believed(
    said: str,
    sizes: tuple[tuple[str, int, int], ...],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.undo()
    done = subprocess.CompletedProcess([], 0, stdout=said)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    model_check.forget_cards()
    request.addfinalizer(model_check.forget_cards)
    found = model_check.nvidia_cards()
    assert tuple((card.name, card.total, card.free) for card in found) == sizes


def test_the_check_carries_the_plan_s_memory() -> None:
    config = TrainConfig(base_model_name="tiny-flux1")
    plan = make_plan(config)
    _, memory, card, main = check(config, plan)
    assert memory == plan.memory_bytes
    assert card.total > 0
    assert main
    assert main.text.startswith("Takes ")
    assert check(config, None).main is None


def test_main_memory_is_compared_with_the_computer() -> None:
    config = TrainConfig(transformer={"layer_offload_fraction": 0.9})
    plan = make_plan(config)
    assert plan.host_bytes > 20 * GIB

    def found(total: int, free: int) -> Finding:
        return main_memory_finding(config, plan, MainMemory(total * GIB, free * GIB))

    kinds = [found(*sizes).kind for sizes in ((64, 60), (64, 10), (16, 12))]
    assert kinds == ["Fine", "Note", "Problem"]
    assert "of 64.0 GiB in this computer. Other programs" in found(64, 10).text
    cure = found(16, 12).text
    assert 'which is too much. Set "Transformer weights"' in cure
    assert cure.endswith("lower; or train on a computer with more.")


def test_the_check_says_where_a_run_is_and_what_is_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(base_model_name="tiny-flux1")
    source = Source(Path("my.json"))

    def said(config: TrainConfig) -> list[Finding]:
        return check(config, None, source).findings[-2:]

    where = Finding("Fine", "Trains in workspace/my, and writes models/my.safetensors.")
    assert said(config)[-1] == where
    run = RunFolder(tmp_path / "workspace" / "my")
    run.create("{}")
    where, note = said(config)
    assert where.text == "Trains in workspace/my-2, and writes models/my-2.safetensors."
    assert note.text.startswith("This run is in workspace/my-2: workspace/my is taken")
    (tmp_path / "b.safetensors").write_text("")
    config.output_model_destination = "b.safetensors"
    assert (
        "There is a b.safetensors already, which is not of this run"
        in said(config)[-1].text
    )
    config.output_model_destination = str(tmp_path)
    assert said(config)[-1].kind == "Problem"
    assert "is a folder" in said(config)[-1].text


def test_a_form_brings_the_name_that_goes_with_it() -> None:
    file = form_change("ORIGINAL_TRANSFORMER", "models/mine")
    assert file["output_model_destination"] == "models/mine.safetensors"
    folder = form_change("DIFFUSERS", "models/mine.safetensors")
    assert folder["output_model_destination"] == "models/mine"
    # what is right as it is stays unsaid, so that it is still named like the run
    assert form_change("KOHYA_LORA", "models/model.safetensors") == {
        "output_model_format": "KOHYA_LORA"
    }


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
