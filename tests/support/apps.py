"""Apps for tests: `blockrate ui` as a process, forked (POSIX) from a server that has imported everything once (2 s).

The server takes requests as JSON lines on stdin and answers with the pid of each app. When its stdin closes it ends,
and every app with it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
Server = subprocess.Popen[str]


@dataclass(frozen=True)
class App:
    """A running app. Its working directory and its memory are there again for the next app of the same test."""

    url: str  # with the token
    folder: Path  # the working directory; the user's home folder too
    home: Path  # BLOCKRATE_HOME
    process: psutil.Process
    output: Path  # what it writes goes to output.out and output.err

    def at(self, path: str) -> str:
        """The URL of a page, with the token."""
        return urlsplit(self.url)._replace(path=path).geturl()

    def errors(self) -> str:
        """What it wrote to stderr."""
        return self.output.with_suffix(".err").read_text(encoding="utf-8")

    def kill(self) -> None:
        """End it as a power cut would; its engine goes on."""
        with suppress(psutil.Error):
            self.process.kill()
            self.process.wait(30)

    def write(self, name: str, data: object) -> Path:
        """Write a JSON file into its folder."""
        path = self.folder / name
        path.write_text(json.dumps(data), encoding="utf-8")
        return path


def start_app(
    place: Path,
    arguments: Sequence[str],
    settings: Mapping[str, str],
    *,
    number: int,
    server: Server | None,
) -> App:
    """Start an app in ``place/work`` on a free port, and wait until it tells its URL."""
    folder = place / "work"
    home = place / "home"
    output = place / f"app-{number}"
    folder.mkdir(exist_ok=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTEST_")
    }
    environment |= {
        "HOME": str(folder),
        "USERPROFILE": str(folder),
        "BLOCKRATE_HOME": str(home),
    } | dict(settings)
    arguments = ["ui", "--no-browser", "--port", "0", *arguments]
    if server and server.stdin and server.stdout:
        request = {
            "arguments": arguments,
            "folder": str(folder),
            "environment": environment,
            "output": str(output),
        }
        print(json.dumps(request), file=server.stdin, flush=True)
        pid = int(
            server.stdout.readline() or sys.exit("the server of warm apps is gone")
        )
    else:
        with (
            output.with_suffix(".out").open("w") as out,
            output.with_suffix(".err").open("w") as errors,
        ):
            command = [sys.executable, "-m", "blockrate", *arguments]
            pid = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=out, stderr=errors
            ).pid
    process = psutil.Process(pid)
    return App(_told_url(output, process), folder, home, process, output)


def _told_url(output: Path, process: psutil.Process) -> str:
    """The URL on the first line of an app's stdout."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        told = (
            output.with_suffix(".out").read_text()
            if output.with_suffix(".out").exists()
            else ""
        )
        if "\n" in told:
            return told.partition("\n")[0].removeprefix("blockrate ui: ")
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.01)
    if process.is_running():
        process.kill()
    raise AssertionError(
        f"the app told no URL: {told}{output.with_suffix('.err').read_text()}"
    )


def copy_photos(folder: Path) -> Path:
    """Copy the ten photographs of the examples, with their captions, into a folder."""
    shutil.copytree(PHOTOS, folder)
    return folder


@contextmanager
def warm_apps() -> Iterator[Server]:
    """Start the server. It imports while the caller goes on."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTEST_")
    }
    command = [sys.executable, __file__]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        text=True,
        env=environment,
        start_new_session=True,
    ) as server:
        yield server
        assert server.stdin
        server.stdin.close()


def serve() -> None:
    """Fork an app for each line of stdin."""
    import_heavy()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            become_app(json.loads(line))
        print(pid, flush=True)
    # the apps that a broken test has left, and this server
    os.killpg(0, signal.SIGKILL)


def import_heavy() -> None:
    """Everything that the app imports, what it imports late too."""
    import gc
    import importlib
    import pkgutil

    import uvicorn.loops.auto
    import uvicorn.protocols.http.auto
    import uvicorn.protocols.websockets.auto

    import blockrate.cli.commands
    import blockrate.config.plan
    import blockrate.ui

    assert all(
        [
            uvicorn.loops.auto,
            uvicorn.protocols.http.auto,
            uvicorn.protocols.websockets.auto,
        ]
    )
    assert all([blockrate.cli.commands, blockrate.config.plan])
    for name in LATE:
        with suppress(ImportError):  # of another version, or another system
            importlib.import_module(name)
    for module in pkgutil.walk_packages(blockrate.ui.__path__, "blockrate.ui."):
        with suppress(Exception):  # an app that needs a broken module tells of it
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # the children share these pages


# what an app imports on its way to the first page, but for what looks at the environment then
LATE = (
    "anyio._backends._asyncio",
    "fastapi.middleware.gzip",
    "nicegui.elements.colors",
    "nicegui.elements.dark_mode",
    "nicegui.elements.footer",
    "nicegui.elements.header",
    "nicegui.elements.icon",
    "nicegui.elements.input",
    "nicegui.elements.select",
    "nicegui.elements.skip_link",
    "nicegui.elements.switch",
    "nicegui.elements.tooltip",
    "nicegui.functions.style",
    "nicegui.ui_run_with",
    "pynvml",
    "typer._adapters",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
)


def become_app(request: Mapping[str, Any]) -> None:
    """Be what `python -m blockrate ui` would be for this request; never returns."""
    code: object = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, suffix in ((1, "out"), (2, "err")):
            os.dup2(
                os.open(
                    f"{request['output']}.{suffix}",
                    os.O_WRONLY | os.O_CREAT | os.O_APPEND,
                ),
                number,
            )
        from blockrate.cli.commands import main
        from blockrate.ui.live import watch

        watch.PATIENCE = int(os.environ.pop("PATIENCE_OF_TEST", watch.PATIENCE))
        sys.argv = ["blockrate", *request["arguments"]]
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    serve()
