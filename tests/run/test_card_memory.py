"""What the NVIDIA cards of this computer hold now, with a driver that answers as NVIDIA's does."""

from collections.abc import Iterator, Mapping
from types import SimpleNamespace

import pynvml
import pytest

from blockrate.run import card_memory
from blockrate.run.card_memory import CardMemory, memory_now

GIB = 2**30
CARDS: dict[int | bytes, CardMemory] = {
    0: CardMemory(3 * GIB, 24 * GIB),
    1: CardMemory(1 * GIB, 8 * GIB),
    b"GPU-4711": CardMemory(2 * GIB, 12 * GIB),
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Whether there is a driver is asked once."""
    card_memory._driver.cache_clear()
    yield
    card_memory._driver.cache_clear()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> dict[int | bytes, CardMemory]:
    """A driver of two cards, and one more that has only a name."""
    cards: dict[int | bytes, CardMemory] = dict(CARDS)

    def handle(name: int | bytes) -> int | bytes:
        if name not in CARDS:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return name

    def told(name: int | bytes) -> SimpleNamespace:
        if name not in cards:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return SimpleNamespace(**cards[name]._asdict(), free=0)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", told)
    return cards


def seen(visible: str | None = None) -> list[CardMemory | None]:
    environment: Mapping[str, str] = {}
    if visible is not None:
        environment = {"CUDA_VISIBLE_DEVICES": visible}
    return list(memory_now(environment))


@pytest.mark.usefixtures("driver")
def test_cards_are_numbered_as_a_program_sees_them() -> None:
    first, second, named = CARDS.values()
    assert seen() == [first, second]
    assert first.free == 21 * GIB
    assert seen("1,0") == [second, first]
    assert seen("GPU-4711,0") == [named, first]
    assert seen("-1") == []
    assert seen("0,7,1") == [first, None, second]


def test_a_card_that_is_lost_leaves_the_others(
    driver: dict[int | bytes, CardMemory],
) -> None:
    driver.pop(0)
    assert seen() == [None, CARDS[1]]


def test_without_a_driver_there_are_no_cards_and_it_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []

    def start() -> None:
        asked.append(True)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", start)
    assert [seen(), seen()] == [[], []]
    assert asked == [True]
