"""Each optimizer of the catalogue on two ranks: whole models as in one process, shared ones too or refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.lives import KEY, Small, saved_bytes
from support.rank_engine import Job, live_together

from blockrate.config.files import config_json
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.train_config import TrainConfig
from blockrate.run.checkpoints import newest_valid
from blockrate.run.folder import RunFolder

pytestmark = pytest.mark.engine
# Prodigy takes no differing rates
ZEROS = {"single_block_0": 0.0}


def config(small: Small, folder: Path, name: str) -> TrainConfig:
    """Three steps of a LoRA whose state is in 8 bits where the optimizer's can be."""
    values: dict[str, Any] = {"epochs": 2, "backup_after": 3, "lora_rank": 16}
    if not OPTIMIZERS[name].per_block_rates:
        values[KEY] = ZEROS
    optimizer: dict[str, Any] = {"optimizer": name}
    if "min_8bit_size" in OPTIMIZERS[name].parameters:
        optimizer |= {"min_8bit_size": 1}
    return small.config(folder, optimizer=optimizer, **values)


def learned(run: RunFolder) -> Mapping[str, Any]:
    newest = newest_valid(run.checkpoints, pytest.fail)
    assert newest
    return saved_bytes(newest)


@pytest.fixture(scope="module")
def of_two(
    small: Small, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, RunFolder]:
    """A run of two ranks by each optimizer."""
    folder = tmp_path_factory.mktemp("optimizers")
    runs = {name: RunFolder(folder / name) for name in OPTIMIZERS}
    for name, run in runs.items():
        run.create(config_json(config(small, run.path, name)))
    jobs = [Job(str(run.path)) for run in runs.values()]
    codes = live_together(folder / "ranks", jobs, size=2)
    assert codes == [[0, 0]] * len(runs)
    return runs


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_ranks_are_one_process_in_every_bit_by_any_optimizer(
    small: Small, tmp_path: Path, of_two: Mapping[str, RunFolder], name: str
) -> None:
    alone = small.live(config(small, tmp_path / "run", name))
    assert learned(of_two[name]) == learned(alone)
