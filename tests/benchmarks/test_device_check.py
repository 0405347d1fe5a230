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
from device.kohya.arguments import trained_by_index
from device.lives import LORA, Lives
from device.measuring import Case, config_of, make, measure
from device.report import COLUMNS, Report
from device.shared import Check, Size
from peft.tuners.lora import LoraLayer
from random_flux import Scale
from support.lives import SPEC, Small

from blockrate import BlockLayout
from blockrate.config.files import load_config
from blockrate.config.plan import make_plan
from blockrate.engine.state import TrainingState
from blockrate.models.families import FAMILIES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def check(small: Small, tmp_path: Path) -> Check:
    """A check of four blocks on images of 32 pixels."""
    name = str(small.folder / "model")
    family = replace(FAMILIES["tiny-flux1"], name=name, spec=SPEC)
    return Check(
        project=ROOT,
        script=tmp_path / "missing.py",
        report=Report(tmp_path / "out", seconds=1000),
        scale=Scale(family, (32,), 8, torch.device("cpu")),
        matmul_rate=1e9,
        steps=2,
    )


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
    measure(check, "rows", case(beside_bare_loop=True))
    half = {"block_learning_rate_multiplier": {"double_block_0": 0.0, "other": 0.0}}
    measure(check, "rows", case(name="half", changes=half, is_whole_step=False))
    whole, part = written(check)["rows"]
    assert set(COLUMNS) - {"note"} <= whole.keys()
    assert "note" not in whole
    assert whole["cost measured"] == whole["cost predicted"] == 1.0
    plan = make_plan(config_of(check.scale, case(changes=half), 32))
    assert part["cost predicted"] == round(plan.step_cost, 3) < 1.0
    assert part["cost measured"] > 0


def test_losses_that_are_not_numbers_are_told_with_their_times(check: Check) -> None:
    def spoil(state: TrainingState) -> None:
        state.transformer.proj_out.weight.data.fill_(float("nan"))

    measure(check, "rows", case(change=spoil))
    [row] = written(check)["rows"]
    assert row["note"] == "loss not a number in 4 of 4 steps"
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
    assert bad == {"what": "bad", "note": "failed: ValueError: no such cure"}
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

    for beside in (False, True):
        torch.manual_seed(0)
        check.weights.drop()
        measure(check, "rows", case(beside_bare_loop=beside, change=remember))
    alone, beside_it = trained
    assert all(torch.equal(alone[name], beside_it[name]) for name in alone)


def test_base_weights_are_shared_until_a_case_would_change_them(check: Check) -> None:
    def base_of(state: TrainingState) -> int:
        place: int = state.transformer.proj_out.weight.data_ptr()
        return place

    first = make(check, case())
    second = make(check, case())
    assert base_of(first) == base_of(second)
    fine = make(check, case(changes=rows.FINE_TUNE))
    assert base_of(fine) != base_of(first)


def test_every_row_has_a_config_that_plans(check: Check) -> None:
    toy = FAMILIES["tiny-flux1"]
    scale = replace(check.scale, family=toy)
    cases = [*rows.lora_cases(scale), *rows.fine_tune_cases(scale)]
    assert len(cases) == 12
    for each in cases:
        for size in each.sizes:
            make_plan(config_of(scale, each, size))


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
    assert "lives: there is only rows, tests, peer" in capsys.readouterr().err


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


def test_modules_of_the_race_find_every_name_of_ours() -> None:
    from device.kohya import rounds

    assert callable(rounds.compete)
