"""The memory of the cards as the app tells it, while it changes."""

import socket
from collections.abc import Callable

import pytest
from nicegui import ui
from support.loops import run_apart

from blockrate.config.train_config import TrainConfig
from blockrate.run.card_memory import CardMemory
from blockrate.run.events import Rank
from blockrate.ui.live import card_memory
from blockrate.ui.live.card_memory import LiveMemory, memory_of, memory_of_run
from blockrate.ui.page import Page

GIB = 2**30
LARGE = CardMemory(3 * GIB, 24 * GIB)
SMALL = CardMemory(GIB, 8 * GIB)
LARGE_TEXT = "3.0 of 24.0 GiB in use on the card now, 21.0 GiB free"
SMALL_TEXT = "1.0 of 8.0 GiB in use on the card now, 7.0 GiB free"


def live(*cards: CardMemory | None) -> LiveMemory:
    memory = LiveMemory()
    memory.cards = cards
    return memory


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, LARGE_TEXT),
        ({"train_device": "cuda:1"}, SMALL_TEXT),
        ({"train_device": "cuda:3"}, ""),
        ({"train_device": "cuda:2"}, ""),
        ({"train_device": "cpu"}, ""),
        ({"multi_gpu": True, "device_indexes": "1"}, f"GPU 1: {SMALL_TEXT}"),
        ({"multi_gpu": True}, f"GPU 0: {LARGE_TEXT} · GPU 1: {SMALL_TEXT}"),
    ],
)
def test_it_is_told_of_the_cards_that_a_config_means(
    settings: dict[str, object], told: str
) -> None:
    config = TrainConfig.model_validate(settings)
    assert memory_of(config, live(LARGE, SMALL, None)) == told
    assert memory_of(config, live()) == ""


def test_of_a_run_on_another_computer_or_a_processor_nothing_is_told() -> None:
    config = TrainConfig()
    here = socket.gethostname()

    def told(*ranks: Rank) -> str:
        return memory_of_run(config, ranks, live(LARGE))

    assert told(Rank(0, here, "a card", 24 * GIB)) == LARGE_TEXT
    assert told(Rank(0, "elsewhere", "a card", 24 * GIB)) == ""
    assert told(Rank(0, here, "the processor")) == ""
    assert told() == ""


def test_it_is_news_only_where_it_reads_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = [3 * GIB, 3 * GIB + 2**20, 4 * GIB]
    answers = [(LARGE._replace(used=each),) for each in used]
    monkeypatch.setattr(card_memory, "memory_now", lambda: answers.pop(0))
    memory = LiveMemory()

    async def look() -> list[bool]:
        return [await memory.look() for _ in used]

    assert run_apart(look()) == [True, False, True]


def test_the_model_tab_shows_it_beside_the_plan_and_follows_it(
    on_a_page: Callable[[Callable[[Page], None]], None],
) -> None:
    def told() -> list[str]:
        elements = ui.context.client.elements.values()
        texts = [each.text for each in elements if isinstance(each, ui.label)]
        return [text for text in texts if "in use on the card" in text]

    def look(page: Page) -> None:
        assert told() == []
        page.watch.memory.cards = (LARGE,)
        page.watch.changed.emit()
        assert told() == [LARGE_TEXT]

    on_a_page(look)
