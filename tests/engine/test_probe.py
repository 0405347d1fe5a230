"""A whole probe: what it writes, what it leaves as it was, how it ends early."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.event_lines import event_lines
from support.lives import Small
from support.probes import files_in, probed

from blockrate.config.base_model import model_spec
from blockrate.config.probed import costs_by_first_block
from blockrate.core.advice import in_proportion
from blockrate.core.errors import ConfigError
from blockrate.core.profile import sparse
from blockrate.engine.probe import probe
from blockrate.models.activations import Work
from blockrate.models.savings import step_flops
from blockrate.run.events import Phase, events_of
from blockrate.run.folder import RunFolder, StopFlag, StopRequested
from blockrate.run.probes import probe_folder

BLOCKS = ["double_block_0", "double_block_1", "single_block_0", "single_block_1"]


@pytest.fixture(scope="module")
def measured(small: Small, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A probe of the usual run, of which single_block_0 would be frozen."""
    config = small.config(tmp_path_factory.mktemp("probe") / "run")
    probed(config, batches=16)
    return probe_folder(config)


def found(run: RunFolder) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run.probe_file.read_text())
    return content


def test_every_block_is_measured_the_frozen_one_too(measured: RunFolder) -> None:
    whole = found(measured)
    assert list(whole["blocks"]) == BLOCKS
    for block in whole["blocks"].values():
        assert block["gradient_norm"] > 0
        assert block["error"] > 0
        assert block["held_out_gain"] is None
    gains = [block["gain"] for block in whole["blocks"].values()]
    assert whole["total"]["gain"] == pytest.approx(sum(gains))
    assert whole["version"] == 1
    assert (whole["images"], whole["batches"], whole["batch_size"]) == (5, 16, 2)
    assert (whole["rank"], whole["learning_rate"]) == (2, 1e-3)


def test_a_toy_with_random_weights_has_much_to_learn(measured: RunFolder) -> None:
    whole = found(measured)
    assert whole["total"]["gain"] > 2 * whole["total"]["error"]
    assert whole["total"]["transfer_to"] == "halves"
    gains = {name: block["gain"] for name, block in whole["blocks"].items()}
    assert whole["proposals"]["in_proportion"] == sparse(in_proportion(gains))


def test_costs_are_those_of_a_step_that_begins_there(
    measured: RunFolder, small: Small, tmp_path: Path
) -> None:
    config = small.config(tmp_path / "run")
    spec = model_spec(config)
    costs = costs_by_first_block(config, spec)
    rows = found(measured)["by_first_block"]
    assert {row["block"]: row["step_cost"] for row in rows} == costs
    assert rows[0]["step_cost"] == rows[0]["kept"] == 1.0
    late = [f"single_transformer_blocks.1.attn.{name}" for name in ("to_q", "to_v")]
    work = Work(16, 16, batch=2, rank=2, checkpointing=False)
    everything = [f"{path}.attn.{name}" for path in PATHS for name in ("to_q", "to_v")]
    expected = step_flops(spec, late, work) / step_flops(spec, everything, work)
    assert costs["single_block_1"] == pytest.approx(expected)


PATHS = [
    *(f"transformer_blocks.{number}" for number in range(2)),
    *(f"single_transformer_blocks.{number}" for number in range(2)),
]


def test_it_tells_how_far_it_is(measured: RunFolder) -> None:
    phases = [record.event for record in events_of(measured.events_file, Phase)]
    told = [
        (phase.done, phase.total)
        for phase in phases
        if isinstance(phase, Phase) and phase.name == "probing"
    ]
    assert told == [(done, 16) for done in range(17)]
    assert not event_lines(measured.events_file, "step")


def test_the_same_config_gives_the_same_file_and_the_cache_stays(
    measured: RunFolder, small: Small, tmp_path: Path
) -> None:
    before = files_in(small.folder)
    config = small.config(tmp_path / "run", learning_rate=1e-3)
    probed(config, batches=16)
    assert probe_folder(config).probe_file.read_bytes() == (
        measured.probe_file.read_bytes()
    )
    assert files_in(small.folder) == before
    # nothing is where the run would be
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["probe"]


def test_another_seed_gives_another_and_rates_do_not(
    measured: RunFolder, small: Small, tmp_path: Path
) -> None:
    rates = {"block_learning_rate_multiplier": dict.fromkeys(BLOCKS, 0.1)}
    other = probed(small.config(tmp_path / "rates", **rates), batches=16)
    assert other.gains == {
        name: block["gain"] for name, block in found(measured)["blocks"].items()
    }
    other = probed(small.config(tmp_path / "seed", seed=7), batches=8)
    assert other.config_hash != found(measured)["config_hash"]
    assert other.gains["double_block_0"] != found(measured)["blocks"]["double_block_0"]


def test_a_fine_tune_is_measured_by_adapters_at_its_own_costs(
    small: Small, tmp_path: Path
) -> None:
    config = small.config(
        tmp_path / "run",
        training_method="FINE_TUNE",
        output_model_format="DIFFUSERS",
        block_learning_rate_multiplier={},
    )
    one = probed(config)
    assert list(one.blocks) == BLOCKS
    lora = costs_by_first_block(small.config(tmp_path / "other"), model_spec(config))
    assert one.by_first_block[-1].step_cost != lora["single_block_1"]


def test_pictures_held_out_give_the_transfer(small: Small, tmp_path: Path) -> None:
    photos = Path(shutil.copytree(small.folder / "photos", tmp_path / "held out"))
    concepts = [
        {"path": str(small.folder / "photos")},
        {"path": str(photos), "type": "VALIDATION"},
    ]
    one = probed(small.config(tmp_path / "run", concepts=concepts), batches=16)
    assert one.held_out_images == 5
    assert one.total.transfer_to == "validation"
    # the same pictures, less than half as many batches of random weights
    assert one.total.transfer == pytest.approx(1.0, abs=0.3)
    assert all(block.held_out_gain for block in one.blocks.values())


def test_pictures_of_what_is_to_be_kept_are_not_those_held_out(
    small: Small, tmp_path: Path
) -> None:
    concepts = [
        {"path": str(small.folder / "photos")},
        {"path": "nothing is here", "type": "VALIDATION", "role": "keep"},
    ]
    one = probed(small.config(tmp_path / "run", concepts=concepts))
    assert one.held_out_images == 0
    assert one.total.transfer_to != "validation"


def test_one_picture_is_enough_and_tells_nothing_of_others(
    small: Small, tmp_path: Path
) -> None:
    for name in ("0.png", "0.txt"):
        (tmp_path / "one").mkdir(exist_ok=True)
        shutil.copy(small.folder / "photos" / name, tmp_path / "one" / name)
    concepts = [{"path": str(tmp_path / "one")}]
    one = probed(small.config(tmp_path / "run", concepts=concepts))
    assert one.images == 1
    assert one.total.transfer is None


class StopsLater(StopFlag):
    """Asked to stop when it has been looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def obey(self) -> None:
        self.looks -= 1
        self.requested = self.requested or self.looks <= 0
        super().obey()


def test_a_stop_on_the_way_leaves_no_measurement_and_an_earlier_one_alone(
    small: Small, tmp_path: Path
) -> None:
    config = small.config(tmp_path / "run")
    with pytest.raises(StopRequested):
        probed(config, stop=StopsLater(4))
    run = probe_folder(config)
    assert not run.probe_file.exists()
    done = [record.event for record in events_of(run.events_file, Phase)]
    assert isinstance(done[-1], Phase)
    assert done[-1].name == "probing"
    assert 0 < done[-1].done < done[-1].total
    run.probe_file.write_text("an earlier one")
    with pytest.raises(StopRequested):
        probed(config, stop=StopsLater(4))
    assert run.probe_file.read_text() == "an earlier one"


def test_a_launcher_of_several_processes_is_refused(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = small.config(tmp_path / "run")
    run = RunFolder(tmp_path / "run" / "probe")
    with pytest.raises(ConfigError, match="measures on one GPU"):
        probe(config, run, None, StopFlag())  # type: ignore[arg-type]


def test_it_measures_in_few_bits_and_with_weights_that_stream(
    small: Small, tmp_path: Path
) -> None:
    streamed = {
        "weight_dtype": "FLOAT_8",
        "gradient_checkpointing": True,
        "layer_offload_fraction": 1.0,
    }
    one = probed(small.config(tmp_path / "run", transformer=streamed))
    exact = probed(small.config(tmp_path / "exact"))
    total = torch.tensor([list(one.gains.values()), list(exact.gains.values())])
    # 8 bits are near: most of each block's gain is the same
    assert torch.corrcoef(total)[0, 1] > 0.8
