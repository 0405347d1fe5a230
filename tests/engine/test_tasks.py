"""What an engine does for the task in its folder's options."""

import pytest

from blockrate.core.errors import ConfigError
from blockrate.engine.tasks import TASKS, work_of


@pytest.mark.parametrize("task", ["", "nothing", None, 3, ["train"], {}])
def test_a_task_that_is_not_known_here_is_refused_before_anything_is_loaded(
    task: object,
) -> None:
    with pytest.raises(ConfigError, match=r"is no task of this version"):
        work_of(task)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_its_work(task: str) -> None:
    assert work_of(task).__name__ == task
