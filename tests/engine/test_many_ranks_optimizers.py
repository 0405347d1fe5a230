"""Each optimizer of the catalogue on two ranks: whole models as in one process, shared ones too or refused."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load
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


SHARED = [name for name, row in OPTIMIZERS.items() if not row.why_not_sharded]


def config(small: Small, folder: Path, name: str, sharding: str) -> TrainConfig:
    """Three steps of a LoRA whose state is in 8 bits where the optimizer's can be."""
    values: dict[str, Any] = {"epochs": 2, "backup_after": 3, "lora_rank": 16}
    values["sharding"] = sharding
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
) -> Mapping[tuple[str, str], RunFolder]:
    """A run of two ranks by each optimizer, on whole weights and on shared ones."""
    folder = tmp_path_factory.mktemp("optimizers")
    wanted = [(name, "NONE") for name in OPTIMIZERS]
    wanted += [(name, "FULL") for name in SHARED]
    runs = {key: RunFolder(folder / "-".join(key)) for key in wanted}
    for (name, sharding), run in runs.items():
        run.create(config_json(config(small, run.path, name, sharding)))
    jobs = [Job(str(run.path)) for run in runs.values()]
    codes = live_together(folder / "ranks", jobs, size=2)
    assert codes == [[0, 0]] * len(runs)
    return runs


@pytest.fixture(scope="module")
def of_one(
    small: Small, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], RunFolder]:
    """A run of one process by an optimizer."""

    @cache
    def live(name: str) -> RunFolder:
        folder = tmp_path_factory.mktemp("alone") / "run"
        return small.live(config(small, folder, name, "NONE"))

    return live


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_ranks_are_one_process_in_every_bit_by_any_optimizer(
    of_two: Mapping[tuple[str, str], RunFolder],
    of_one: Callable[[str], RunFolder],
    name: str,
) -> None:
    assert learned(of_two[name, "NONE"]) == learned(of_one(name))


@pytest.mark.parametrize("name", SHARED)
def test_two_ranks_that_share_the_weights_are_one_process_by_what_is_not_refused(
    of_two: Mapping[tuple[str, str], RunFolder],
    of_one: Callable[[str], RunFolder],
    name: str,
) -> None:
    shared, alone = (
        load(learned(run)["weights.safetensors"])
        for run in (of_two[name, "FULL"], of_one(name))
    )
    assert shared.keys() == alone.keys()
    furthest = max(float((shared[key] - alone[key]).abs().max()) for key in alone)
    print(f"{name}: {furthest:.1e}")
    assert furthest < 1e-6
