"""Coroutines in tests that may share a process with a browser."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_apart(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in a thread of its own: in the main one Playwright's loop counts as running between its calls."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, work).result()
