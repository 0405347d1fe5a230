"""What several test folders share."""

import gc
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.lives import Small, make_small

# Toy tensors gain nothing from threads, and threads of busy cores wait for each other: up to 200 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def know_only_this_machine() -> None:
    """Forget what the environment says of the hub and of a way out: a hub of ours is here, and others are not asked."""
    for name in [*os.environ]:
        if name.startswith(("HF_", "HUGGING_FACE_", "HUGGINGFACE_", "TRANSFORMERS_")):
            del os.environ[name]
    for name in ("NO_PROXY", "no_proxy"):
        known = os.environ.get(name, "").split(",")
        here = [place for place in ("127.0.0.1", "localhost") if place not in known]
        os.environ[name] = ",".join(filter(None, [*here, *known]))


know_only_this_machine()

# A busy machine is no fault of a property. CI draws the same examples every time, so that it never fails by luck.
settings.register_profile(
    "blockrate",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("blockrate")


# What takes seconds, by the fixtures that a test asks for, however it gets them. A test that takes as long without one
# of these says so itself: @pytest.mark.engine.
MARKS = {"browser": {"browser"}, "engine": {"tiny_flux", "small", "warm_engine"}}


# Few tests that take long. These files begin first, or one of them would be at work alone in the end.
LONG = (
    "engine/test_many_ranks.py",
    "run/test_many_processes.py",
    "ui/run_tab/test_real_runs.py",
    "ui/test_acceptance.py",
    "ui/test_first_use.py",
    "ui/test_accessibility.py",
    "engine/test_twins.py",
    "engine/test_streamed_runs.py",
    "end_to_end/test_runs.py",
    "end_to_end/test_durability.py",
    "end_to_end/test_many_gpus.py",
    "engine/test_compiled_adamw.py",
    "engine/test_gathering.py",
    "ui/tabs/test_draw_tab.py",
    "ui/compare/test_better.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Function]
) -> None:
    """Mark the tests with a browser and those with an engine, and cases for `soak`, before `-m` chooses among them."""
    cases: dict[object, list[pytest.Function]] = {}
    for item in items:
        for mark, fixtures in MARKS.items():
            if fixtures & set(item.fixturenames):
                item.add_marker(mark)
        if item.get_closest_marker("cases"):
            cases.setdefault(item.function, []).append(item)
    # who asks for a file or a test by name gets all of it
    if config.args == config.getini("testpaths"):
        for group in cases.values():
            leave_to_soak(group)
    # a process of several, which are given files in this order
    if hasattr(config, "workerinput"):
        put_long_files_first(items)


def put_long_files_first(items: list[pytest.Function]) -> None:
    """Order tests by file: those that take long, then by how many tests there are in each."""
    counts = Counter(item.path for item in items)
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONG)}
    assert all(file.is_file() for file in places), "LONG names a file that is gone"
    items.sort(key=lambda item: (places.get(item.path, len(LONG)), -counts[item.path]))


def leave_to_soak(group: Sequence[pytest.Function]) -> None:
    """Let the suite take so many of the cases of a slow test as its mark says, from the first to the last."""
    mark = group[0].get_closest_marker("cases")
    assert mark
    count = mark.args[0]
    gaps = max(count - 1, 1)
    taken = {round(place * (len(group) - 1) / gaps) for place in range(count)}
    for place, item in enumerate(group):
        if place not in taken:
            item.add_marker("soak")


def pytest_collection_finish() -> None:
    """Let the collector pass over what is imported, or each release of a model looks through it for half a second."""
    # benchmarks that were imported have told their own programs
    know_only_this_machine()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder with a FLUX.1 of toy width, 19 + 38 blocks, float32. Read only: shared by the session."""
    from blockrate.engine.models.flux1 import make_tiny

    return make_tiny(tmp_path_factory.mktemp("models") / "tiny-flux1")


@pytest.fixture(scope="session")
def warm_engine() -> Iterator[Mapping[str, str]]:
    """Environment for a command line whose engine starts at once, forked from a server that has imported torch."""
    if os.name == "nt":
        yield {}
        return
    from support.warm_engine import warm_server

    with warm_server() as command:
        yield {"BLOCKRATE_ENGINE": command}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A model of four blocks with images and a cache, for runs in this process. Shared: read only."""
    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the waiting for the disk, where a test is not about it."""
    monkeypatch.setattr("blockrate.run.durable._fsync", lambda descriptor: None)
