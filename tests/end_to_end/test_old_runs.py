"""Runs and files that the code before the move has left go on, and say what they said."""

import json
from pathlib import Path

import pytest
from support.old_runs import (
    EXPECTED,
    FIXTURES,
    blockrate,
    damages,
    events,
    newest_checkpoint,
    number_differences,
    steps,
    tensor_differences,
    unpack,
)

# whole runs in processes of their own
pytestmark = pytest.mark.engine
LORAS = ("lora-diffusers.safetensors", "lora-kohya.safetensors")
RUNS = ("lora-stopped", "lora-finished", "fine-tune-stopped", "fine-tune-finished")
STOPPED_AT = {"lora-stopped": 6, "fine-tune-stopped": 14}
FINISHED_AT = {"lora-finished": 12, "fine-tune-finished": 40}
FILES = ("weights.safetensors", "optimizer.safetensors", "average.safetensors")


def assert_same_end(whole: Path, gone_on: Path) -> None:
    """Compare all that two runs have learned and told, the first unbroken, the second in two lives."""
    one, other = newest_checkpoint(whole), newest_checkpoint(gone_on)
    assert one.name == other.name
    assert not damages(other)
    for file in FILES:
        assert not list(tensor_differences(one / file, other / file))
    results = {
        path.relative_to(whole)
        for path in whole.rglob("*.safetensors")
        if "result" in str(path)
    }
    assert results
    for result in results:
        assert not list(tensor_differences(whole / result, gone_on / result))
    told, told_before = steps(gone_on), steps(whole)
    assert told.keys() == told_before.keys()
    for step, numbers in told_before.items():
        assert told[step] == pytest.approx(numbers, rel=1e-3)


def made_anew_in_silence(run: Path) -> bool:
    """Whether cached tensors were made once more without a word that says why."""
    last_life = events(run, "phase", "warned", "stopped")
    stop = max(
        place for place, event in enumerate(last_life) if event["type"] == "stopped"
    )
    since = last_life[stop:]
    made = any(
        event["type"] == "phase" and event["name"] == "caching" for event in since
    )
    told = any(
        event["type"] == "warned" and "cache" in event["message"] for event in since
    )
    return made and not told


@pytest.mark.parametrize("kind", ["lora", "fine-tune"])
def test_a_stopped_run_goes_on_and_ends_where_an_unbroken_one_did(
    kind: str, tmp_path: Path
) -> None:
    root = unpack(tmp_path, f"{kind}-stopped", f"{kind}-finished")
    run = root / f"{kind}-stopped"
    done = blockrate("train", f"{kind}-stopped.json", folder=root)
    assert done.code == 0, done.err
    assert [event["from_step"] for event in events(run, "resumed")] == [
        STOPPED_AT[run.name]
    ]
    assert done.out.strip().startswith(f"{kind}-stopped/result")
    assert_same_end(root / f"{kind}-finished", run)
    if kind == "fine-tune":  # its model, and so its cache, are part of the fixtures
        assert not made_anew_in_silence(run)


def test_a_damaged_old_checkpoint_is_seen_and_the_one_before_leads_to_the_same_end(
    tmp_path: Path,
) -> None:
    root = unpack(tmp_path, "fine-tune-stopped", "fine-tune-finished")
    run = root / "fine-tune-stopped"
    file = newest_checkpoint(run) / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    done = blockrate("train", "fine-tune-stopped.json", folder=root)
    assert done.code == 0, done.err
    assert "step-00000014 is damaged" in done.err
    assert [event["from_step"] for event in events(run, "resumed")] == [10]
    assert_same_end(root / "fine-tune-finished", run)


@pytest.mark.parametrize("name", FINISHED_AT)
def test_a_finished_run_says_so_and_is_left_as_it_was(
    name: str, tmp_path: Path
) -> None:
    root = unpack(tmp_path, name)
    before = (root / name / "events.jsonl").read_bytes()
    done = blockrate("train", f"{name}.json", folder=root)
    assert done.code == 0
    assert f"finished, after {FINISHED_AT[name]} steps" in done.err
    assert done.out.strip().startswith(f"{name}/result")
    assert (root / name / "events.jsonl").read_bytes() == before


def test_a_finished_run_goes_on_when_epochs_are_raised(tmp_path: Path) -> None:
    root = unpack(tmp_path, "fine-tune-finished")
    run = root / "fine-tune-finished"
    # its rate has fallen to its end
    longer = ("--set", "epochs=42", "--extend")
    done = blockrate("train", "fine-tune-finished.json", *longer, folder=root)
    assert done.code == 0, done.err
    assert [event["from_step"] for event in events(run, "resumed")] == [40]
    assert newest_checkpoint(run).name == "step-00000042"
    assert max(steps(run)) == 42


@pytest.mark.parametrize("name", RUNS)
def test_status_and_plan_say_what_they_said(name: str, tmp_path: Path) -> None:
    root = unpack(tmp_path, name)
    assert all(
        not damages(checkpoint)
        for checkpoint in (root / name / "checkpoints").glob("step-*")
    )
    status = json.loads(blockrate("status", name, "--json", folder=root).out)
    finished = name in FINISHED_AT
    assert status["state"] == ("Finished" if finished else "Stopped")
    assert status["step"] == (FINISHED_AT | STOPPED_AT)[name]
    assert status["exit_code"] == (0 if finished else 75)
    plan = json.loads(blockrate("plan", f"{name}.json", "--json", folder=root).out)
    groups = {group["name"]: group for group in plan["groups"]}
    before = {group["name"]: group for group in EXPECTED["plan"][name]["groups"]}
    assert not list(number_differences(before, groups))
    assert plan["first_trained_block"] == EXPECTED["plan"][name]["first_trained_block"]


@pytest.mark.parametrize("file", LORAS)
def test_inspect_says_of_an_old_lora_what_it_said(file: str, tmp_path: Path) -> None:
    done = blockrate("inspect", FIXTURES / file, "--json", folder=tmp_path)
    assert not list(number_differences(EXPECTED["inspect"][file], json.loads(done.out)))
    table = blockrate("inspect", FIXTURES / file, folder=tmp_path)
    assert table.code == 0
    assert all(name in table.out for name in EXPECTED["inspect"][file]["blocks"])
