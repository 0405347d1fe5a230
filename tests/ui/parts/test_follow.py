"""What a screen reads from disk never holds up the pages of the others."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from blockrate.ui.parts.follow import answers_from_thread

THREADS: list[threading.Thread] = []


def one_by_one(question: int) -> Iterator[int]:
    for number in range(question):
        THREADS.append(threading.current_thread())
        yield number


def all_at_once(question: int) -> Iterator[int]:
    THREADS.append(threading.current_thread())
    return iter(range(question))


@pytest.mark.parametrize("read", [one_by_one, all_at_once])
def test_reading_runs_in_a_thread_whatever_form_it_has(
    read: Callable[[int], Iterator[int]],
) -> None:
    answers: list[int] = []

    async def collect() -> None:
        answers.extend([answer async for answer in answers_from_thread(read, 3)])

    # a thread of its own for the loop: a browser's test before may have left one here
    loop = threading.Thread(target=lambda: asyncio.run(collect()))
    THREADS.clear()
    loop.start()
    loop.join()
    assert answers == [0, 1, 2]
    assert THREADS
    assert loop not in THREADS
