"""The check for a GPU machine goes its ways at toy width, and tells what it finds."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from device import check as door
from device import cures, diffusers_script, rows
from device.idle import covered, intervals
from device.kohya.arguments import trained_by_index
from device.kohya.contestant import BY_THREAD
from device.kohya.ours import config_of as contestant_config
from device.kohya.race import Race
from device.lives import LORA, Lives
from device.measuring import (
    Case,
    config_of,
    measure,
    measure_unless_known,
    predict,
)
from device.packed import packed
from device.report import COLUMNS, Report
from device.shared import Check, Size
from peft.tuners.lora import LoraLayer
from random_flux import Scale
from support.lives import SPEC
from torch.profiler import ProfilerActivity, profile

from blockrate import BlockLayout
from blockrate.config.files import load_config
from blockrate.config.plan import make_plan
from blockrate.engine.models.gguf_weights import unpacked
from blockrate.engine.state import TrainingState
from blockrate.models.families import FAMILIES, TransformerSpec
from blockrate.models.savings import CONTEXT_BYTES

ROOT = Path(__file__).resolve().parents[2]


# enough blocks for some to stream, and not so few that those stay where they have come
SEVEN = replace(SPEC, layout=BlockLayout(3, 4))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the model, the images and what is encoded of them."""
    return tmp_path_factory.mktemp("check")


def made_check(folder: Path, scratch: Path, spec: TransformerSpec) -> Check:
    family = replace(FAMILIES["tiny-flux1"], spec=spec)
    return Check(
        project=ROOT,
        script=folder / "missing.py",
        report=Report(folder / "out", seconds=1000),
        scratch=scratch / f"blocks-{len(spec.layout.names)}",
        scale=Scale(family, (32,), 8, torch.device("cpu")),
        matmul_rate=1e9,
        steps=1,
    )


@pytest.fixture
def check(tmp_path: Path, scratch: Path) -> Check:
    """A check of four blocks on images of 32 pixels."""
    return made_check(tmp_path, scratch, SPEC)


@pytest.fixture
def check_of_seven(tmp_path: Path, scratch: Path) -> Check:
    """A check of seven blocks."""
    return made_check(tmp_path, scratch, SEVEN)


def case(**changes: Any) -> Case:
    made = Case(
        name="all blocks",
        changes={},
        sizes=(32,),
        seconds=1,
        group="lora",
        is_whole_step=True,
    )
    return replace(made, **changes)


def written(check: Check) -> dict[str, Any]:
    text = (check.report.folder / "report.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def test_row_holds_what_the_table_shows(check: Check) -> None:
    check.rounds = 2
    measure(check, "rows", case(beside_bare_loop=True, idle=True))
    half = {"block_learning_rate_multiplier": {"double_block_0": 0.0, "other": 0.0}}
    measure(check, "rows", case(name="half", changes=half, is_whole_step=False))
    whole, part = written(check)["rows"]
    of_streams = {"loads/step", "of resident", "of resident predicted"}
    assert set(COLUMNS) - {"note"} - of_streams <= whole.keys()
    assert not of_streams & whole.keys()
    assert "note" not in whole
    assert whole["cost measured"] == whole["cost predicted"] == 1.0
    # there is no card that could be idle
    assert whole["% idle"] is None
    plan = make_plan(config_of(check, case(changes=half), 32))
    assert part["cost predicted"] == round(plan.step_cost, 3) < 1.0
    assert part["cost measured"] > 0


@pytest.mark.cases(1)
@pytest.mark.parametrize("form", ["GGUF", "FLOAT_8", "BFLOAT_16"])
def test_what_streams_is_compared_with_what_lies_on_the_card(
    check_of_seven: Check, form: str
) -> None:
    check = check_of_seven
    resident = case(changes={"transformer": {"weight_dtype": form}}, group=form)
    part = {"weight_dtype": form, "layer_offload_fraction": 0.9}
    streamed = replace(
        resident, name="streamed", changes={"transformer": part}, is_whole_step=False
    )
    measure_unless_known(check, "rows", resident)
    measure_unless_known(check, "rows", resident)
    measure(check, "rows", streamed)
    whole, beside = written(check)["rows"]
    assert "loads/step" not in whole
    # four, for the first and the last two stay; twice each, less two at both turns
    assert beside["loads/step"] == 2 * 4 - 4
    assert beside["of resident"] == pytest.approx(
        beside["s/step"] / whole["s/step"], abs=0.02
    )
    assert beside["of resident predicted"] >= 1.0
    assert not {"note", "cost measured"} & beside.keys()


def test_fine_tune_steps_as_its_preset_says(check_of_seven: Check) -> None:
    check = check_of_seven
    [first, *_] = rows.fine_tune_cases(check.scale)
    seen: list[TrainingState] = []
    measure(check, "rows", replace(first, change=seen.append))
    [row] = written(check)["rows"]
    assert "note" not in row
    assert row["loads/step"] >= 0
    # gradients are gone when the backward is over
    assert all(weights.grad is None for weights in seen[0].trained.values())
    assert config_of(check, first, 32).optimizer.fused_back_pass


def test_predicted_memory_is_all_that_torch_asks_for(check: Check) -> None:
    small = case(changes={"transformer": {"weight_dtype": "FLOAT_8"}})
    config = config_of(check, small, 32)
    memory = make_plan(config.model_copy(update={"train_device": "cuda"})).memory_bytes
    # the largest weight, as it is computed with, and the context of CUDA
    assert memory.workspace > CONTEXT_BYTES
    assert predict(check, config).memory == memory.total - CONTEXT_BYTES


def test_random_weights_are_packed_as_ggml_reads_them() -> None:
    weight = torch.randn(4, 64)
    again = unpacked(packed(weight), "Q8_0", torch.float32)
    assert again.shape == weight.shape
    assert (again - weight).abs().max() <= weight.abs().max() / 127


def test_card_is_idle_where_no_kernel_runs() -> None:
    assert covered([(0.0, 1.0), (0.5, 2.0), (3.0, 3.5), (3.1, 3.2)]) == 2.5
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as looked_at:
        torch.ones(8).sum()
    found = list(intervals(looked_at.events(), "CPU"))
    assert found
    assert all(begin <= end for begin, end in found)
    assert 0 < covered(found) < 10
    assert not list(intervals(looked_at.events(), "CUDA"))


def test_losses_that_are_not_numbers_are_told_with_their_times(check: Check) -> None:
    def spoil(state: TrainingState) -> None:
        state.transformer.proj_out.weight.data.fill_(float("nan"))

    measure(check, "rows", case(change=spoil))
    [row] = written(check)["rows"]
    assert row["note"] == "loss not a number in 3 of 3 steps"
    assert row["s/step"] > 0
    # steps that change no weights are no measure for others
    assert "cost measured" not in row
    assert check.whole_steps == {}


def test_what_fails_is_told_and_the_next_case_runs(check: Check) -> None:
    def fail(state: TrainingState) -> None:
        raise ValueError("no such cure")

    measure(check, "cures", case(name="bad", change=fail))
    measure(check, "cures", case())
    bad, good = written(check)["cures"]
    note = "failed: ValueError: no such cure"
    assert bad == {"what": "bad", "px": 32, "note": note}
    assert good["s/step"] > 0
    assert Size(32, 1, "lora") in check.whole_steps


def test_what_takes_too_long_is_named_and_left_out(check: Check) -> None:
    measure(check, "rows", case(seconds=2000))
    diffusers_script.measure_peer(check)
    found = written(check)
    assert found["rows"] == []
    assert found["left_out"] == [
        "all blocks: for lack of time",
        f"peer: {check.script} does not exist",
    ]


def test_cures_can_go_back_to_pefts_layers_and_leave_autocast_out(
    check: Check,
) -> None:
    seen: list[bool] = []

    def go_back(state: TrainingState) -> None:
        cures.with_pefts_layers(state)
        for module in state.transformer.modules():
            if isinstance(module, LoraLayer):
                seen.append("forward" in vars(module))

    measure(check, "cures", case(change=go_back))
    measure(check, "cures", case(changes={"enable_autocast": False}))
    back, plain = written(check)["cures"]
    assert seen
    assert not any(seen)
    assert "note" not in back
    assert "note" not in plain


def test_bare_loop_leaves_no_trace(check: Check) -> None:
    trained: list[dict[str, torch.Tensor]] = []

    def remember(state: TrainingState) -> None:
        trained.append(state.trained)  # type: ignore[arg-type]

    # on the same base weights, which are kept
    for beside in (False, True):
        measure(check, "rows", case(beside_bare_loop=beside, change=remember))
    alone, beside_it = trained
    assert all(torch.equal(alone[name], beside_it[name]) for name in alone)


def test_trainer_that_fails_is_told_and_leaves_nothing_behind(check: Check) -> None:
    hopeless = {"concepts": [{"name": "none", "path": str(check.folder / "none")}]}
    measure(check, "rows", case(name="bad", changes=hopeless))
    [bad] = written(check)["rows"]
    assert bad["note"].startswith("failed: bad failed at its start: ")
    assert "none" in bad["note"]
    assert not BY_THREAD


def test_base_weights_are_shared_until_a_case_would_change_them(check: Check) -> None:
    places: list[int] = []

    def note_place(state: TrainingState) -> None:
        places.append(state.transformer.proj_out.weight.data_ptr())

    for changes in ({}, {}, rows.FINE_TUNE):
        measure(check, "rows", case(changes=changes, change=note_place))
    assert places[0] == places[1] != places[2]


def test_every_row_has_a_config_that_plans(check: Check) -> None:
    check.scale = replace(check.scale, family=FAMILIES["tiny-flux1"])
    check.scratch = check.scratch / "tiny"
    scale = check.scale
    cases = [*rows.lora_cases(scale), *rows.fine_tune_cases(scale)]
    assert len(cases) == 14
    cases += [one for pair in rows.streamed_cases(scale) for one in pair]
    cases += rows.short_cases(scale)
    for each in cases:
        for size in each.sizes:
            make_plan(config_of(check, each, size))


def test_parts_run_in_the_order_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[str] = []

    def runners() -> dict[str, Callable[..., None]]:
        return {name: lambda _, name=name: ran.append(name) for name in door.PARTS}

    words = ["check.py", "--only", "tests,rows", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(door, "prepare", lambda project: None)
    monkeypatch.setattr(door, "runners", runners)
    monkeypatch.setattr("device.card.facts", lambda report, scale: 1.0)
    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    door.main()
    torch.set_num_threads(threads)
    assert ran == ["tests", "rows"]


def test_every_part_has_what_runs_it() -> None:
    assert tuple(door.runners()) == door.PARTS


def test_unknown_parts_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["check.py", "--only", "rows,lives"])
    with pytest.raises(SystemExit):
        door.read_options()
    assert (
        "lives: there is only rows, streaming, tests, peer" in capsys.readouterr().err
    )


def test_runs_that_are_killed_have_a_config_that_plans(tmp_path: Path) -> None:
    lives = Lives(ROOT, Report(tmp_path, seconds=1), tmp_path)
    config = load_config(lives.config("broken", only_cache=True)).config
    make_plan(config)
    assert config.deterministic
    assert config.only_cache
    assert config.output_model_destination == str(tmp_path / "broken" / LORA)


@pytest.mark.parametrize(
    ("frozen", "doubles", "singles"),
    [(28, "none", "9-37"), (5, "5-18", "0-37"), (19, "none", "0-37")],
)
def test_kohyas_index_lists_begin_after_the_frozen_blocks(
    frozen: int, doubles: str, singles: str
) -> None:
    assert trained_by_index(BlockLayout(19, 38), frozen) == [
        f"train_double_block_indices={doubles}",
        f"train_single_block_indices={singles}",
    ]


@pytest.mark.parametrize(
    ("name", "form", "share"),
    [
        ("ours", "BFLOAT_16", 0.0),
        ("ours-fp8", "FLOAT_8", 0.0),
        ("ours-half-streamed74", "BFLOAT_16", 0.74),
        ("ours-fp8-streamed90", "FLOAT_8", 0.9),
    ],
)
def test_name_in_the_race_says_the_form_of_our_weights_and_what_streams(
    tmp_path: Path, name: str, form: str, share: float
) -> None:
    race = Race(
        shape="full",
        modules="all",
        checkpointing=True,
        pixels=64,
        text_tokens=64,
        spec=SPEC,
        device=torch.device("cpu"),
        folder=tmp_path,
        peer_words=[],
        is_bf16=True,
    )
    config = contestant_config(race, name)
    assert config.transformer.weight_dtype == form
    assert config.transformer.layer_offload_fraction == share
    assert bool(config.block_learning_rate_multiplier) is ("-half" in name)


def test_modules_of_the_race_find_every_name_of_ours() -> None:
    from device.kohya import rounds

    assert callable(rounds.compete)
