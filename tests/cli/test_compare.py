"""``blockrate compare``: a table and a sentence, JSON, and the runs that it plans."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.image_zoo import picture

from blockrate.run.events import ConceptLoss, EventLog, Finished, Validated
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
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOCKRATE_HOME", str(tmp_path / "home"))
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
    files = sorted((folder / "mine-compare").glob("*/*.json"))
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
    assert (profile["name"], flat["name"]) == ("profile", "flat at its mean")
    assert flat["differs"] is False
    done = list((folder / "mine-compare").rglob("events.jsonl"))
    assert len(done) == 6


def test_planned_runs_wait_in_the_queue_seed_by_seed_and_only_once(
    blockrate: Blockrate, folder: Path
) -> None:
    words = ("compare", "--plan", "config.json", "--small", "--queue")
    code, out, told = blockrate(*words)
    assert code == 0
    assert "6 of them are in the queue" in told
    assert "blockrate compare mine-compare" in told
    assert "profile, seed 42" in out
    jobs = json.loads(blockrate("queue", "list", "--json")[1])["jobs"]
    assert [job["name"].partition(": ")[2] for job in jobs] == [
        f"{arm}, seed {seed}"
        for seed in (42, 43, 44)
        for arm in ("profile", "flat at its mean")
    ]
    assert "0 of them are in the queue" in blockrate(*words)[2]
    code, _, told = blockrate("compare", "mine-compare")
    assert code == 2
    assert "0 of 6 runs are finished" in told


def test_the_folder_of_planned_runs_is_compared_and_what_is_missing_told(
    blockrate: Blockrate, folder: Path
) -> None:
    assert blockrate("compare", "--plan", "config.json", "--small")[0] == 0
    for number, file in enumerate(
        sorted((folder / "mine-compare").glob("*/seed-4[23].json"))
    ):
        run = RunFolder(file.with_suffix(""))
        run.create(file.read_text())
        log = EventLog(run.events_file)
        log.write(measured(2.0, 2.1, 0.0), step=0)
        log.write(measured(1.0 + number / 100, 2.0, 0.02), step=3)
        log.write(Finished(), step=3)
    code, out, _ = blockrate("compare", "mine-compare")
    assert code == 0
    assert "subject loss against drift" in out
    assert "A profile  B flat at its mean" in out
    assert "keep loss" in out
    assert "2 seeds in common" in out
    assert "missing: profile, seed 44" in out
    assert "not started" in out
    facts = json.loads(blockrate("compare", "mine-compare", "--json")[1])
    assert [row["seed"] for row in facts["missing"]] == [44, 44]
    [profile, flat] = facts["arms"]
    assert profile["name"] == "profile"
    assert profile["drift"] == {"mean": 0.02}
    assert flat["at_equal_drift"]["pairs"] == 2
    assert profile["runs"][0]["curve"][1] == {
        "step": 3,
        "subject": 1.02,
        "keep": 2.0,
        "drift": 0.02,
    }


def measured(subject: float, keep: float, drift: float) -> Validated:
    concepts = [
        ConceptLoss(1, "others", "subject", 1, subject),
        ConceptLoss(2, "known", "keep", 3, keep),
    ]
    return Validated((subject + 3 * keep) / 4, concepts, drift)


def test_what_should_stay_is_added_to_the_planned_runs(
    blockrate: Blockrate, folder: Path
) -> None:
    picture(folder / "known" / "one.png", 512, 512)
    words = ("compare", "--plan", "config.json", "--small", "--keep", "known")
    code, _, told = blockrate(*words)
    assert code == 0
    assert "--keep known --start" in told
    planned = json.loads(blockrate(*words, "--json")[1])
    config = json.loads(Path(planned["runs"][0]["config"]).read_text())
    assert config["concepts"][-1]["role"] == "keep"
    assert blockrate(*words[:-1], "nowhere")[0] == 2
    # of other images: another comparison
    assert blockrate(*words[:-2])[0] == 0
    assert (folder / "mine-compare-2").is_dir()


def test_start_and_queue_are_one_or_the_other(
    blockrate: Blockrate, folder: Path
) -> None:
    code, _, told = blockrate("compare", "--plan", "config.json", "--start", "--queue")
    assert code == 2
    assert "--start and --queue are given together" in told
