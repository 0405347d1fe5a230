"""Several ranks train what one process trains: real torchrun and gloo, on a model of four blocks."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from support.edited_runs import live_edited
from support.lives import KEY, RATES, Small, events, make_small, saved_bytes
from support.rank_engine import Job, live_together

from blockrate.config.files import config_json
from blockrate.core.blocks import BlockLayout, block_of
from blockrate.engine.models import flux1, flux2
from blockrate.models.families import FAMILIES
from blockrate.run.checkpoints import checkpoints
from blockrate.run.folder import RunFolder, StopFlag, StopRequested

pytestmark = pytest.mark.engine
train: Any = import_module("blockrate.engine.train")

SPECS = {
    model_type: replace(FAMILIES[name].spec, layout=BlockLayout(2, 2))
    for model_type, name in {"FLUX_2": "tiny-flux2", "CHROMA_1": "tiny-chroma"}.items()
}

PNG = {"prompt": "a cat", "width": 64, "height": 64, "diffusion_steps": 2}
FINE = {"training_method": "FINE_TUNE", "learning_rate": 1e-4}
# acts in every step
CLIPPED = {"clip_grad_norm": 1e-3, "epochs": 4}
BF16 = {
    **FINE,
    "train_dtype": "BFLOAT_16",
    "transformer": {"weight_dtype": "BFLOAT_16", "gradient_checkpointing": True},
    "optimizer": {"optimizer": "ADAMW", "stochastic_rounding": True},
    "ema": "GPU",
    "ema_update_step_interval": 1,
    "epochs": 2,
}
SHOWN = {
    "samples": [PNG | {"seed": seed} for seed in range(3)],
    "sample_after": 3,
    "sample_after_unit": "STEP",
    "validation": True,
    "validate_after": 3,
    "validate_after_unit": "STEP",
}
# micro-batches of 3 and of 2: no deal comes out even
UNEVEN = {"batch_size": 4, "gradient_accumulation_steps": 1, "epochs": 5}


class Ranks(NamedTuple):
    """What ranks have lived, and the way to live the same alone."""

    small: Small
    folder: Path
    codes: dict[str, list[int]]

    def run(self, name: str) -> RunFolder:
        return RunFolder(self.folder / name)

    def alone(self, name: str, **settings: Any) -> RunFolder:
        """One life of a run in this process. ``settings``: of other families, too."""
        small = _model(self.small, settings)
        return small.live(_config(small, self.folder / name, settings))


def _model(small: Small, settings: dict[str, Any]) -> Small:
    """The model that settings are for."""
    spec = SPECS.get(settings.get("model_type", ""))
    if spec is None:
        return small
    folder = small.folder / settings["model_type"]
    return Small(folder) if folder.exists() else make_small(folder, spec)


def _config(small: Small, folder: Path, settings: dict[str, Any]) -> Any:
    values = dict(settings)
    if values.get("validation"):
        photos = str(small.folder / "photos")
        values["concepts"] = [
            {"path": photos, "image": {"enable_random_flip": True}},
            {"path": photos, "type": "VALIDATION"},
            {"path": photos, "type": "VALIDATION", "role": "keep"},
        ]
    return small.config(folder, **values)


class Wanted(NamedTuple):
    """A run for several ranks: its settings, and what happens on its way."""

    settings: dict[str, Any]
    fault: str = ""
    given: dict[str, Any] = {}  # noqa: RUF012


SHARED = {"multi_gpu": True, "sharding": "FULL"}
# clipping does not act: the norm of all is added up in another order than that of one
LORA = {"epochs": 2, "clip_grad_norm": 100.0}
MEASURED = {"validation": True, "validate_after": 3, "validate_after_unit": "STEP"}
BLOCKS = {**FINE, **LORA, "layer_filter": "", "layer_filter_preset": "blocks"}
FULL = {
    **FINE,
    **CLIPPED,
    **SHOWN,
    "layer_filter": "",
    "transformer": {"gradient_checkpointing": True},
    "ema": "GPU",
    "ema_update_step_interval": 1,
}
FLUX_2 = {
    "model_type": "FLUX_2",
    "model_variant": "BASE",
    "layer_filter": "",
    "layer_filter_preset": "blocks",
    "epochs": 2,
    "samples": [PNG],
    "sample_after": 3,
    "sample_after_unit": "STEP",
}
CHROMA = {
    **FINE,
    "model_type": "CHROMA_1",
    "layer_filter": "",
    "epochs": 2,
    "samples": [PNG],
    "sample_after": 3,
    "sample_after_unit": "STEP",
}

EDITS = {
    "1": {"double_block_0": 0.0, "single_block_0": 0.0},
    "2": {"double_block_1": 0.2, "single_block_0": 0.0},
}
PHASES: dict[str, Any] = {
    **LORA,
    KEY: {},
    "block_learning_rate_phases": [
        {"from": 0, KEY: EDITS["1"]},
        {"from": 2, KEY: EDITS["2"]},
    ],
}
TWO = {
    "phases": Wanted(PHASES),
    "phases shared": Wanted({**PHASES, **SHARED}),
    "edited": Wanted(LORA, "ask_for_rates", {"edits": EDITS}),
    "edited shared": Wanted({**LORA, **SHARED}, "ask_for_rates", {"edits": EDITS}),
    "lora": Wanted({**CLIPPED, **SHOWN}),
    "fine": Wanted({**CLIPPED, **FINE}),
    "bf16": Wanted(BF16),
    "uneven": Wanted(UNEVEN),
    "stopped": Wanted(CLIPPED, "stop_at", {"step": 3, "rank": 1}),
    "nan": Wanted({"epochs": 2}, "not_a_number", {"files": ["3.png"]}),
    "all nan": Wanted({}, "not_a_number", {"files": [f"{n}.png" for n in range(5)]}),
    "failed": Wanted(
        {"epochs": 4, "backup_after": 100}, "fail_at", {"step": 4, "rank": 1}
    ),
    "cached": Wanted({"epochs": 1}, "note_entries"),
    # of captions that no run before has encoded
    "full card": Wanted(
        {"epochs": 1, "text_encoder_2_sequence_length": 8}, "full_card", {"rank": 1}
    ),
    "gone on": Wanted(CLIPPED),
    "flux2": Wanted(FLUX_2),
    "chroma": Wanted(CHROMA),
    "lora shared": Wanted({**LORA, **SHARED, **MEASURED}),
    "blocks shared": Wanted({**BLOCKS, **SHARED}),
    "full shared": Wanted({**FULL, **SHARED}),
    "bf16 shared": Wanted({**BF16, **SHARED, "clip_grad_norm": 100.0}),
    "bf16 compiled shared": Wanted(
        {**BF16, **SHARED, "clip_grad_norm": 100.0, "compile": True},
        "compile_no_blocks",
    ),
    "stopped shared": Wanted({**CLIPPED, **SHARED}, "stop_at", {"step": 3, "rank": 1}),
    "nan shared": Wanted({"epochs": 2, **SHARED}, "not_a_number", {"files": ["3.png"]}),
    # measured in two passes by the second, of which the first pass is bad
    "measured shared": Wanted(
        {"epochs": 2, **SHARED, **SHOWN, "samples": []},
        "not_a_number",
        {"files": ["2.png"], "validation": True},
    ),
    "flux2 shared": Wanted({**FLUX_2, **SHARED}),
    "chroma shared": Wanted({**CHROMA, **SHARED}),
}
THREE = {
    "uneven by 3": Wanted(UNEVEN),
    "more by 3": Wanted({"gradient_accumulation_steps": 3, "epochs": 4}),
    "more shared by 3": Wanted(
        {**FINE, "gradient_accumulation_steps": 3, "epochs": 4, **SHARED}
    ),
    # a run that two ranks have begun
    "stopped shared": Wanted({**CLIPPED, **SHARED}),
}


def lived(small: Small, folder: Path, wanted: dict[str, Wanted], *, size: int) -> Ranks:
    """Let ranks live runs."""
    jobs = []
    for name, (settings, fault, given) in wanted.items():
        run = RunFolder(folder / name)
        if name == "cached":
            settings = {**settings, "cache_dir": str(folder / "by ranks")}
        if fault in ("note_entries", "fail_at", "ask_for_rates"):
            given = {**given, "folder": str(run.path)}
        config = _config(_model(small, settings), run.path, settings)
        run.create(config_json(config))
        jobs.append(Job(str(run.path), fault, dict(given)))
    codes = live_together(folder / f"by-{size}", jobs, size=size)
    return Ranks(small, folder, dict(zip(wanted, codes, strict=True)))


@pytest.fixture(scope="module")
def two(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    folder = tmp_path_factory.mktemp("ranks")
    begun = small.config(folder / "gone on", **CLIPPED)
    with pytest.MonkeyPatch.context() as patch:
        stopping = StopFlag()
        real = train.take_step

        def take_step(*given: Any, **named: Any) -> Any:
            stopping.requested = named["step"] == 2
            return real(*given, **named)

        patch.setattr(train, "take_step", take_step)
        with pytest.raises(StopRequested):
            small.live(begun, stopping)
    return lived(small, folder, TWO, size=2)


@pytest.fixture(scope="module")
def three(two: Ranks) -> Ranks:
    stopped = two.run("stopped shared").path
    shutil.copytree(stopped, two.folder / "kept")
    return lived(two.small, two.folder, THREE, size=3)


@pytest.fixture
def aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process that computes as ranks do that share the weights, in the last bit too.

    Gathered weights begin at round addresses. One process has them where they lie in the file, and the products of its
    processor hang on that. It also puts adapters together that are shared out each by itself.
    """
    monkeypatch.setattr(
        "blockrate.engine.adapters.lora.compute_in_few_kernels", lambda *given: None
    )
    for family in (flux1, flux2):
        real = family.load_transformer

        def load_transformer(*given: Any, real: Any = real) -> Any:
            transformer = real(*given)
            for parameter in transformer.parameters():
                parameter.data = parameter.data.clone()
            return transformer

        monkeypatch.setattr(family, "load_transformer", load_transformer)


def same_in_every_bit(one: RunFolder, other: RunFolder) -> Iterator[str]:
    """Yield the checkpoints of two runs that are equal; fail at one that is not."""
    names = [checkpoint.name for checkpoint in checkpoints(one.checkpoints)]
    assert names == [checkpoint.name for checkpoint in checkpoints(other.checkpoints)]
    for name in names:
        assert saved_bytes(one.checkpoints / name) == saved_bytes(
            other.checkpoints / name
        )
        yield name


def largest_difference(
    one: RunFolder, other: RunFolder, part: str = "weights"
) -> float:
    """How far the weights of two runs' newest checkpoints are from each other."""
    newest = [checkpoints(run.checkpoints)[-1] for run in (one, other)]
    assert newest[0].name == newest[1].name
    first, second = (load_file(folder / f"{part}.safetensors") for folder in newest)
    assert first
    assert first.keys() == second.keys()
    return max(
        float((first[name].float() - second[name].float()).abs().max())
        for name in first
    )


def losses(run: RunFolder, kind: str = "step") -> list[float]:
    return [event["loss"] for event in events(run, kind)]


def same_measures(one: RunFolder, other: RunFolder, *, drifts: bool = True) -> None:
    """What two runs have measured is the same: loss, loss by concept, drift, which begins at nought."""
    pairs = list(zip(events(one, "validated"), events(other, "validated"), strict=True))
    assert len(pairs) > 1
    for mine, theirs in pairs:
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        if drifts:
            assert mine["drift"] == pytest.approx(theirs["drift"], rel=1e-2)
        concepts = list(zip(mine["concepts"], theirs["concepts"], strict=True))
        assert [concept["role"] for concept, _ in concepts] == ["subject", "keep"]
        for concept, its in concepts:
            assert concept["images"] == its["images"] == 5
            assert concept["loss"] == pytest.approx(its["loss"], rel=1e-5)
    if drifts:
        assert pairs[0][0]["drift"] == 0.0
        assert pairs[-1][0]["drift"] > 0


@pytest.mark.parametrize(
    ("name", "settings"),
    [("lora", {**CLIPPED, **SHOWN}), ("fine", {**CLIPPED, **FINE}), ("bf16", BF16)],
)
def test_two_ranks_learn_what_one_process_learns_in_every_bit(
    two: Ranks, name: str, settings: dict[str, Any]
) -> None:
    alone = two.alone(f"{name} alone", **settings)
    assert two.codes[name] == [0, 0]
    equal = list(same_in_every_bit(two.run(name), alone))
    print(f"{name}: {len(equal)} checkpoints of 2 ranks equal those of 1 process")
    assert len(equal) == settings["epochs"] * 3 // 2
    norms = [event["grad_norm"] for event in events(alone, "step")]
    assert min(norms) > settings.get("clip_grad_norm", 0.0)
    assert losses(two.run(name)) == pytest.approx(losses(alone), rel=1e-6)


def test_what_is_told_of_two_ranks_is_what_is_told_of_one(two: Ranks) -> None:
    """Groups and rates, validation and samples; each once."""
    alone = two.alone("shown alone", **CLIPPED, **SHOWN)
    run = two.run("lora")
    groups = [events(one, "started")[0]["groups"] for one in (run, alone)]
    assert groups[0] == groups[1]
    assert {group["name"] for group in groups[0]} == {
        "double_block_0",
        "double_block_1",
        "single_block_1",
    }
    assert RATES["single_block_0"] == 0.0
    same_measures(run, alone)
    kinds = [event["type"] for event in events(run)]
    assert kinds.count("step") == 6
    drawn = [event["files"] for event in events(run, "sampled")]
    assert drawn == [event["files"] for event in events(alone, "sampled")]
    assert [len(files) for files in drawn] == [3, 3]
    for file in drawn[0]:
        assert (run.path / file).read_bytes() == (alone.path / file).read_bytes()


def test_the_finished_model_of_two_ranks_is_that_of_one(two: Ranks) -> None:
    alone = two.alone("finished alone", **CLIPPED, **SHOWN)
    files = [
        load_file(one.path / "result.safetensors") for one in (two.run("lora"), alone)
    ]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def test_a_batch_that_does_not_come_out_even_is_learned_all_the_same(
    two: Ranks, three: Ranks
) -> None:
    alone = two.alone("uneven alone", **UNEVEN)
    for run in (two.run("uneven"), three.run("uneven by 3")):
        difference = largest_difference(run, alone)
        print(f"{run.path.name}: largest difference {difference:.1e}")
        assert difference <= 5e-5


def test_three_ranks_learn_nearly_the_same(three: Ranks) -> None:
    alone = three.alone("more alone", **THREE["more by 3"].settings)
    difference = largest_difference(three.run("more by 3"), alone)
    print(f"3 ranks: largest difference {difference:.1e}")
    assert difference <= 5e-5
    assert three.codes["more by 3"] == [0, 0, 0]


def test_a_stop_that_one_rank_hears_stops_all_after_the_same_step(two: Ranks) -> None:
    assert two.codes["stopped"] == [75, 75]
    names = [folder.name for folder in checkpoints(two.run("stopped").checkpoints)]
    assert names == [f"step-{number:08}" for number in (1, 2, 3)]


def test_one_process_goes_on_where_two_ranks_were_stopped_in_every_bit(
    two: Ranks,
) -> None:
    alone = two.alone("unbroken", **CLIPPED)
    # the folder itself: the run that was stopped goes on
    gone_on = two.alone("stopped", **CLIPPED)
    assert len(list(same_in_every_bit(gone_on, alone))) == 6


def test_a_number_that_is_none_on_one_rank_is_skipped_on_all(two: Ranks) -> None:
    run = two.run("nan")
    assert two.codes["nan"] == [0, 0]
    skipped = events(run, "skipped")
    assert len(skipped) == 2
    for event in skipped:
        assert [name for name in event["files"] if name.endswith("3.png")]
        # all images of the step are told, not one rank's
        assert len(event["files"]) > 2
    assert len(events(run, "step")) == 1
    for tensor in load_file(
        checkpoints(run.checkpoints)[-1] / "weights.safetensors"
    ).values():
        assert tensor.isfinite().all()


def test_five_bad_steps_in_a_row_end_all_ranks_and_one_tells(two: Ranks) -> None:
    first, second = two.codes["all nan"]
    assert first == 76
    # which leaves it to the other to tell
    assert second == 1
    assert len(events(two.run("all nan"), "skipped")) == 5


def test_what_one_rank_loses_the_first_saves_and_no_rank_says_that_it_is_lost(
    two: Ranks,
) -> None:
    run = two.run("failed")
    assert two.codes["failed"] == [1, 1]
    names = [folder.name for folder in checkpoints(run.checkpoints)]
    assert names == ["step-00000003"]
    told = [(run.path / f"notes-{rank}.txt").read_text() for rank in (0, 1)]
    assert told == ["Step 3 is saved: the same command goes on.", ""]


def test_a_card_that_only_the_second_rank_finds_full_is_told_of(two: Ranks) -> None:
    assert two.codes["full card"] == [0, 0]
    run = two.run("full card")
    [told] = [one for one in events(run, "warned") if one["code"] == "memory"]
    assert "and GPU 1 (the processor) has 0.0 MiB free: set " in told["message"]
    every = [event["type"] for event in events(run)]
    names = [event.get("name") for event in events(run)]
    # while there is time to do something else
    assert every.index("warned") < names.index("caching")


def test_each_entry_of_the_cache_is_made_once_and_as_by_one(
    two: Ranks, no_sync: None
) -> None:
    cache = two.folder / "by one"
    two.alone("cached alone", epochs=1, cache_dir=str(cache))
    by_one = {file.name: file.read_bytes() for file in cache.rglob("*.safetensors")}
    ranks = two.folder / "by ranks"
    assert by_one == {
        file.name: file.read_bytes() for file in ranks.rglob("*.safetensors")
    }
    made = [
        (two.run("cached").path / f"made-{rank}.txt").read_text().split()
        for rank in (0, 1)
    ]
    assert sorted(made[0] + made[1]) == sorted(by_one)
    assert abs(len(made[0]) - len(made[1])) <= 2


def test_two_ranks_go_on_where_one_process_was_stopped_in_every_bit(two: Ranks) -> None:
    assert two.codes["gone on"] == [0, 0]
    alone = two.alone("not broken off", **CLIPPED)
    assert len(list(same_in_every_bit(two.run("gone on"), alone))) == 6


@pytest.mark.parametrize("name", ["edited", "edited shared", "phases", "phases shared"])
def test_ranks_take_new_block_rates_together_in_every_bit(
    two: Ranks, name: str, request: pytest.FixtureRequest
) -> None:
    assert two.codes[name] == [0, 0]
    if "shared" in name:
        request.getfixturevalue("aligned")
    edits = {int(step): [rates] for step, rates in EDITS.items()}
    settings = LORA
    steps = [1, 2]
    if "phases" in name:
        edits = {}
        settings = PHASES
        steps = [2]
    config = _config(two.small, two.folder / f"{name} alone", settings)
    alone = live_edited(config, edits)
    run = two.run(name)
    for checkpoint in checkpoints(alone.checkpoints):
        for part in ("weights", "optimizer"):
            mine, theirs = (
                load_file(one.checkpoints / checkpoint.name / f"{part}.safetensors")
                for one in (run, alone)
            )
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    for one in (run, alone):
        assert [event["step"] for event in events(one, "rates")] == steps


@pytest.mark.parametrize(
    ("name", "settings"), [("lora shared", LORA), ("blocks shared", BLOCKS)]
)
def test_ranks_that_share_the_weights_learn_the_same_in_every_bit(
    two: Ranks, aligned: None, name: str, settings: dict[str, Any]
) -> None:
    assert two.codes[name] == [0, 0]
    alone = two.alone(f"{name} alone", **settings)
    run = two.run(name)
    for checkpoint in checkpoints(alone.checkpoints):
        for part in ("weights", "optimizer"):
            mine, theirs = (
                load_file(one.checkpoints / checkpoint.name / f"{part}.safetensors")
                for one in (run, alone)
            )
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert len(checkpoints(alone.checkpoints)) == 3
    print(f"{name}: 3 checkpoints equal those of 1 process")
    told = [events(one, "started")[0]["groups"] for one in (run, alone)]
    assert told[0] == told[1]


def test_blocks_at_nought_stay_as_they_were_where_weights_are_shared(
    two: Ranks,
) -> None:
    [trained, before] = [
        load_file(folder / "diffusion_pytorch_model.safetensors")
        for folder in (
            two.run("blocks shared").path / "result",
            two.small.folder / "model" / "transformer",
        )
    ]
    frozen = [name for name in before if block_of(name) == "single_block_0"]
    assert frozen
    assert all(torch.equal(trained[name], before[name]) for name in frozen)
    assert any(not torch.equal(trained[name], before[name]) for name in before)


def test_average_checkpointing_and_clipping_work_on_shared_weights(
    two: Ranks, aligned: None
) -> None:
    """A fine-tune of everything, whose time embedding adds up in another order."""
    assert two.codes["full shared"] == [0, 0]
    alone = two.alone("full alone", **FULL)
    run = two.run("full shared")
    for part in ("weights", "average"):
        difference = largest_difference(run, alone, part)
        print(f"full shared, {part}: largest difference {difference:.1e}")
        assert difference <= 5e-5
    assert losses(run) == pytest.approx(losses(alone), rel=1e-5)
    same_measures(run, alone, drifts=False)
    drawn = [event["files"] for event in events(run, "sampled")]
    assert drawn == [event["files"] for event in events(alone, "sampled")]
    results = [
        load_file(one.path / "result" / "diffusion_pytorch_model.safetensors")
        for one in (run, alone)
    ]
    assert results[0].keys() == results[1].keys()
    for name, tensor in results[0].items():
        assert torch.allclose(tensor, results[1][name], atol=5e-5)
    facts = [(one.path / "result" / "config.json").read_text() for one in (run, alone)]
    assert facts[0] == facts[1]


def test_a_shared_lora_is_what_one_process_makes_of_it_in_its_own_way(
    two: Ranks,
) -> None:
    alone = two.alone("its own way", **LORA, **MEASURED)
    same_measures(two.run("lora shared"), alone)
    difference = largest_difference(two.run("lora shared"), alone)
    print(f"lora shared, against adapters put together: {difference:.1e}")
    assert difference <= 5e-5


def test_what_blocks_do_is_told_of_shared_weights_too(two: Ranks) -> None:
    alone = two.alone("watched alone", **LORA)
    for mine, theirs in zip(
        events(two.run("lora shared"), "blocks"), events(alone, "blocks"), strict=True
    ):
        for what in ("grad_norms", "update_ratios", "learning_rates"):
            assert mine[what] == pytest.approx(theirs[what], rel=1e-4), what


def test_the_chance_of_rounding_hangs_on_no_number_of_ranks(
    two: Ranks, aligned: None
) -> None:
    alone = two.alone("rounded alone", **{**BF16, "clip_grad_norm": 100.0})
    assert two.codes["bf16 shared"] == [0, 0]
    difference = largest_difference(two.run("bf16 shared"), alone)
    print(f"bf16 shared: largest difference {difference:.1e}")
    # one step of bf16 at 1.0
    assert difference <= 2**-8
    assert two.codes["bf16 compiled shared"] == [0, 0]
    difference = largest_difference(two.run("bf16 compiled shared"), alone)
    assert difference <= 2**-8


def test_three_ranks_that_share_the_weights_learn_nearly_the_same(three: Ranks) -> None:
    settings = {**FINE, "gradient_accumulation_steps": 3, "epochs": 4}
    alone = three.alone("more shared alone", **settings)
    assert three.codes["more shared by 3"] == [0, 0, 0]
    difference = largest_difference(three.run("more shared by 3"), alone)
    print(f"3 ranks that share: largest difference {difference:.1e}")
    assert difference <= 5e-5


def test_a_run_goes_on_by_another_number_of_ranks(two: Ranks, three: Ranks) -> None:
    assert two.codes["stopped shared"] == [75, 75]
    kept = RunFolder(two.folder / "kept")
    assert [folder.name for folder in checkpoints(kept.checkpoints)] == [
        f"step-{number:08}" for number in (1, 2, 3)
    ]
    assert three.codes["stopped shared"] == [0, 0, 0]
    alone = two.alone("never stopped", **CLIPPED)
    run = three.run("stopped shared")
    assert events(run, "resumed")[-1]["step"] == 3
    difference = largest_difference(run, alone)
    print(f"2 that share, then 3: largest difference {difference:.1e}")
    assert difference <= 5e-5


def test_a_bad_number_is_skipped_where_weights_are_shared(two: Ranks) -> None:
    assert two.codes["nan shared"] == [0, 0]
    skipped = events(two.run("nan shared"), "skipped")
    whole = events(two.run("nan"), "skipped")
    assert [event["files"] for event in skipped] == [event["files"] for event in whole]


def test_a_bad_number_in_validation_is_told_where_weights_are_shared(
    two: Ranks,
) -> None:
    """Not waited for: who leaves a pass out lets the others wait in theirs."""
    assert two.codes["measured shared"] == [0, 0]
    warned = [
        event["message"] for event in events(two.run("measured shared"), "warned")
    ]
    assert [text for text in warned if "2.png" in text]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("flux2", FLUX_2),
        ("flux2 shared", FLUX_2),
        ("chroma", CHROMA),
        ("chroma shared", CHROMA),
    ],
)
def test_ranks_learn_other_families_as_one_process_does(
    two: Ranks, name: str, settings: dict[str, Any]
) -> None:
    """A LoRA of one, and all weights of the other."""
    assert two.codes[name] == [0, 0]
    alone = two.alone(f"{name} alone", **settings)
    difference = largest_difference(two.run(name), alone)
    print(f"{name}: largest difference {difference:.1e}")
    assert difference <= 5e-5
    drawn = [event["files"] for event in events(two.run(name), "sampled")]
    assert drawn == [event["files"] for event in events(alone, "sampled")]
