"""``blockrate compare``: a table and a sentence, JSON, and the runs that it plans."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.image_zoo import picture

from blockrate.run.events import EventLog, Validated
from blockrate.run.folder import RunFolder

CONFIG: dict[str, Any] = {
    "base_model_name": "tiny-flux1",
    "workspace_dir": "mine",
    "layer_filter_preset": "blocks",
    "validation": True,
    "epochs": 3,
    "concepts": [
        {"path": "photos"},
        {"path": "others", "type": "VALIDATION"},
    ],
    "block_learning_rate_multiplier": {"single_block_37": 0.5},
}
Blockrate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for name in ("photos", "others"):
        picture(tmp_path / name / f"{name}.png", 512, 512)
        (tmp_path / name / f"{name}.txt").write_text("a dog")
    return tmp_path


def runs(folder: Path, *losses: tuple[str, int, float]) -> list[str]:
    """Run folders of an arm, a seed and a loss each."""
    made = []
    for arm, seed, loss in losses:
        run = RunFolder(folder / arm / f"seed-{seed}")
        rates = CONFIG["block_learning_rate_multiplier"] if arm == "profile" else {}
        config = {**CONFIG, "seed": seed, "block_learning_rate_multiplier": rates}
        run.create(json.dumps(config))
        EventLog(run.events_file).write(Validated(loss), step=3)
        made.append(str(run.path.relative_to(folder)))
    return made


def test_a_difference_is_told_in_a_sentence_and_in_json(
    blockrate: Blockrate, folder: Path
) -> None:
    named = runs(
        folder,
        *(("profile", seed, 1.0 + 0.01 * seed) for seed in range(3)),
        *(("flat", seed, 1.2 + 0.011 * seed) for seed in range(3)),
    )
    code, out, _ = blockrate("compare", *named)
    assert code == 0
    assert "after 3 steps" in out
    assert "flat: the loss is higher than that of profile by 0.2010" in out
    facts = json.loads(blockrate("compare", *named, "--json")[1])
    assert facts["step"] == 3
    assert [arm["name"] for arm in facts["arms"]] == ["profile", "flat"]
    assert facts["arms"][1]["differs"]
    assert facts["arms"][1]["pairs"] == 3


def test_chance_is_no_difference_and_two_runs_are_no_verdict(
    blockrate: Blockrate, folder: Path
) -> None:
    losses = {0: 1.3, 1: 0.8, 2: 1.0}
    named = runs(
        folder,
        *(("profile", seed, 1.0) for seed in losses),
        *(("flat", seed, loss) for seed, loss in losses.items()),
    )
    assert "flat: no difference found from profile" in blockrate("compare", *named)[1]
    _, out, _ = blockrate("compare", named[0], named[3])
    assert "1 seeds in common" not in out
    assert "1 seed in common with" in out


def test_nothing_to_compare_is_said(blockrate: Blockrate, folder: Path) -> None:
    for words in ([], runs(folder, ("profile", 0, 1.0))):
        code, _, told = blockrate("compare", *words)
        assert code == 2
        assert "there is nothing to compare" in told


@pytest.mark.parametrize(
    "words",
    [
        ("profile/seed-0", "--plan", "config.json"),
        ("profile/seed-0", "profile/seed-1", "--small"),
        ("profile/seed-0", "profile/seed-1", "--start"),
        ("profile/seed-0", "profile/seed-1", "--seeds", "5"),
        ("profile/seed-0", "profile/seed-1", "--set", "epochs=3"),
    ],
)
def test_what_would_be_ignored_is_refused(
    blockrate: Blockrate, folder: Path, words: tuple[str, ...]
) -> None:
    runs(folder, ("profile", 0, 1.0), ("profile", 1, 1.0))
    code, _, told = blockrate("compare", *words)
    assert code == 2
    assert "--plan" in told


def test_planned_runs_are_written_told_and_can_be_planned(
    blockrate: Blockrate, folder: Path
) -> None:
    code, _, told = blockrate("compare", "--plan", "config.json", "--small")
    assert code == 0
    assert "6 runs of 3 steps: profile, flat at its mean" in told
    assert "not known before the config has been trained once" in told
    files = sorted((folder / "mine-compare").rglob("*.json"))
    assert len(files) == 6
    for file in files:
        assert blockrate("plan", str(file))[0] == 0


def test_started_runs_are_trained_one_after_another(
    blockrate: Blockrate, folder: Path
) -> None:
    """The engine of this test measures the same loss in every run."""
    words = ("compare", "--plan", "config.json", "--small", "--start", "--json")
    code, out, _ = blockrate(*words)
    assert code == 0
    [profile, flat] = json.loads(out)["arms"]
    assert (profile["name"], flat["name"]) == ("profile", "flat-at-its-mean")
    assert flat["differs"] is False
    done = list((folder / "mine-compare").rglob("events.jsonl"))
    assert len(done) == 6
