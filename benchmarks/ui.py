"""The app in a browser: how soon it is there, what a drag costs, how much memory it takes, what onlookers cost a run.

Goals: the window open after 150 ms (400 ms the first time), one event per drag, 200 MB without torch, a page ready
after 2 s on two cores, training at most 5 % slower while ten clients watch it.
"""

import asyncio
import os
import re
import runpy
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import HTTPCookieProcessor, build_opener

import psutil
from common import (
    Times,
    arguments,
    make_toy,
    milliseconds,
    scratch,
    spread,
    table,
    toy_config,
)
from playwright.sync_api import Browser, Page, expect, sync_playwright
from websockets.asyncio.client import connect
from websockets.typing import Origin

from blockrate.config.files import config_json
from blockrate.run.events import Step, events_of

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CLIENTS = 10
SETTINGS = {
    "base_model_name": "tiny-flux1",
    "epochs": 10**6,
    "layer_filter": "",
    "layer_filter_preset": "blocks",
}
CLIENT = r"client_id[^0-9a-f]{1,12}([0-9a-f-]{36})"  # in a page of NiceGUI
SOCKET = (
    "/_nicegui_ws/socket.io/?EIO=4&transport=websocket&implicit_handshake=true"
    "&next_message_id=0&document_id=d&tab_id=t"
)
OPEN = """async () => {
  const frame = () => new Promise(requestAnimationFrame);
  let asked = 0, answered = 0;
  const out = () => { asked ||= performance.now() }, back = () => { answered ||= performance.now() };
  window.socket.onAnyOutgoing(out).onAny(back);
  const begun = performance.now();
  document.querySelector("[aria-label='Layer Filter settings']").click();
  while (document.querySelectorAll("[role=slider]").length < 57) await frame();
  await frame();
  await frame();
  window.socket.offAnyOutgoing(out).offAny(back);
  return [performance.now() - begun, answered - asked];
}"""


@dataclass(frozen=True)
class App:
    """A running app."""

    url: str  # with the token
    process: psutil.Process

    def at(self, path: str) -> str:
        """The address of a page, with the token."""
        return urlsplit(self.url)._replace(path=path).geturl()


def main() -> None:
    """Print all figures."""
    options = arguments(__doc__, rounds=8, turns=16, seconds=6)
    with scratch() as folder:
        make_toy(folder)
        config = toy_config(folder, **SETTINGS)
        (folder / "toy.json").write_text(config_json(config), encoding="utf-8")
        with app_on(folder, "toy.json") as app:
            with sync_playwright() as playwright:
                path = (
                    os.environ.get("BLOCKRATE_BROWSER")
                    or runpy.run_path(str(ROOT / "tests/support/browsers.py"))[
                        "find_browser"
                    ]()
                )
                browser = playwright.chromium.launch(
                    executable_path=path or None, args=FLAGS
                )
                in_a_browser(app, browser, options.rounds)
                start_training(app, browser)
                browser.close()
            slowdown(
                app, folder / "run" / "events.jsonl", options.turns, options.seconds
            )


@contextmanager
def app_on(folder: Path, *arguments: str) -> Iterator[App]:
    """Run an app in a folder, with nothing remembered from before."""
    command = [sys.executable, "-m", "blockrate", "ui", *arguments, "--no-browser"]
    environment = {
        **os.environ,
        "BLOCKRATE_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": str(os.cpu_count()),
    }
    with psutil.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield App(
                process.stdout.readline().split()[-1], psutil.Process(process.pid)
            )
        finally:
            # the engine, which would go on
            for one in [*process.children(recursive=True), process]:
                one.kill()


def in_a_browser(app: App, browser: Browser, rounds: int) -> None:
    """Print when a page and the window are there, what a drag sends, and the memory of the app after all that."""
    before = megabytes(app)
    ready = Times()
    first: list[float] = []
    again: list[float] = []
    server = []
    events = []
    for _ in range(rounds):
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        with ready.measure():
            page.goto(app.at("/training"))
            page.wait_for_function("window.did_handshake")
            expect(
                page.get_by_role("button", name="Layer Filter settings")
            ).to_be_visible()
        for number in range(4):
            total, answered = page.evaluate(OPEN)
            (again if number else first).append(total / 1000)
            server.append(answered / 1000)
            if number < 3:
                close_window(page)
        events.append(drag(page))
        page.context.close()
    rows = [
        ["a page ready, ms", milliseconds(ready.wall), "2000"],
        ["the window open, first of all, ms", f"{1000 * first[0]:.0f}", "400"],
        ["the window open, first in a page, ms", milliseconds(first[1:]), "400"],
        ["the window open, again, ms", milliseconds(again), "150"],
        ["of which until the server answers, ms", milliseconds(server), ""],
        ["events that a drag of 60 moves sends", spread(events, ".0f"), "1"],
        ["memory of the app at first, MB", f"{before:.0f}", "200"],
        ["memory of the app now, MB", f"{megabytes(app):.0f}", "200"],
        ["torch in it", "yes" if has_torch(app) else "no", "no"],
    ]
    table("The app in a browser", ["what", "measured", "goal"], rows)


def close_window(page: Page) -> None:
    """Close the window of rates and wait until it is gone."""
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def drag(page: Page) -> int:
    """Paint over many faders in 60 moves; how many events went to the server."""
    page.evaluate(
        "window.sent = 0; window.socket.onAnyOutgoing((name) => { window.sent += name === 'event' })"
    )
    ends = [
        page.get_by_role("slider", name=name, exact=True).bounding_box()
        for name in ("single_block_2", "single_block_30")
    ]
    begin, end = (
        {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for box in ends
        if box
    )
    page.mouse.move(begin["x"], begin["y"])
    page.mouse.down()
    page.mouse.move(end["x"], end["y"] + 40, steps=60)
    page.mouse.up()
    page.wait_for_timeout(500)  # whatever comes late counts too
    return int(page.evaluate("window.sent"))


def start_training(app: App, browser: Browser) -> None:
    """Press Start, and wait until steps are taken."""
    page = browser.new_page()
    page.goto(app.at("/run"))
    page.wait_for_function("window.did_handshake")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Running", timeout=120_000)


def slowdown(app: App, events: Path, turns: int, seconds: int) -> None:
    """Print what clients cost a run. With and without them take turns; whoever goes first changes."""
    slowed = []
    sent = []
    processor: dict[int, list[float]] = {0: [], CLIENTS: []}
    memory = []
    for turn in range(turns):
        times = {}
        for clients in (0, CLIENTS) if turn % 2 else (CLIENTS, 0):
            with onlookers(app, clients) as taken:
                time.sleep(1)
                taken.clear()
                begun = time.time()
                before = sum(app.process.cpu_times()[:2])
                time.sleep(seconds)
                processor[clients].append(
                    100 * (sum(app.process.cpu_times()[:2]) - before) / seconds
                )
                times[clients] = statistics.median(_seconds(events, begun))
                memory += [megabytes(app)] if clients else []
                sent += [sum(taken) / 1000 / seconds / clients] if clients else []
        slowed.append(times[CLIENTS] / times[0])
    rows = [
        [f"a step with {CLIENTS} clients / without", spread(slowed), "1.05"],
        [
            f"processor of the app with {CLIENTS} clients, % of a core",
            spread(processor[CLIENTS], ".1f"),
            "",
        ],
        [
            "processor of the app with none, % of a core",
            spread(processor[0], ".1f"),
            "",
        ],
        ["sent to a client, KB a second", spread(sent, ".1f"), ""],
        [f"memory of the app with {CLIENTS} clients, MB", f"{memory[0]:.0f}", "200"],
        [
            f"after {turns} times {CLIENTS} clients, those of 2 minutes kept for their return, MB",
            f"{memory[-1]:.0f}",
            "",
        ],
    ]
    table(
        f"While a run trains on every core, of {os.cpu_count()}",
        ["what", "measured", "goal"],
        rows,
    )


def _seconds(events: Path, begun: float) -> list[float]:
    """How long each step took that ended after ``begun``."""
    return [
        record.event.seconds
        for record in events_of(events, Step)
        if isinstance(record.event, Step) and (record.time or 0) > begun
    ]


@contextmanager
def onlookers(app: App, count: int) -> Iterator[list[int]]:
    """Clients at the Run tab that take all they are sent, without a browser's own work; the sizes of the messages."""
    jar = CookieJar()
    opener = build_opener(HTTPCookieProcessor(jar))
    opener.open(app.at("/model")).read()  # for the cookie
    ids = []
    for _ in range(count):
        found = re.search(CLIENT, opener.open(app.at("/run")).read().decode())
        assert found
        ids.append(found[1])
    headers = {"Cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar)}
    host = urlsplit(app.url).netloc
    taken = []
    done = threading.Event()

    async def look(client: str) -> None:
        address = f"ws://{host}{SOCKET}&client_id={client}"
        origin = Origin(f"http://{host}")
        async with connect(
            address, additional_headers=headers, origin=origin, proxy=None
        ) as socket:
            async for message in socket:
                taken.append(len(message))
                # of engine.io: the connection is open; a ping
                if str(message)[:1] in "02":
                    await socket.send("40" if str(message)[0] == "0" else "3")

    async def look_all() -> None:
        tasks = [asyncio.create_task(look(client)) for client in ids]
        await asyncio.to_thread(done.wait)
        for task in tasks:
            task.cancel()

    thread = threading.Thread(target=asyncio.run, args=(look_all(),))
    thread.start()
    yield taken
    done.set()
    thread.join()
    assert bool(taken) == bool(count), "the clients were sent nothing"


def megabytes(app: App) -> float:
    """The resident memory of the app alone, not of its engine."""
    return app.process.memory_info().rss / 1e6


def has_torch(app: App) -> bool:
    """Whether any library of torch is loaded there."""
    return any("torch" in Path(part.path).name for part in app.process.memory_maps())


if __name__ == "__main__":
    main()
