"""A fork server that has imported torch, diffusers, transformers and peft once (10 s), and its client. POSIX.

``warm_engine.py serve FD`` answers on the listening socket FD: each request is forked and becomes an engine of its own
session, as ``python -m blockrate.engine`` would be. It ends when its stdin closes, so it never outlives the tests.
``warm_engine.py run SOCKET RUN_FOLDER`` is what BLOCKRATE_ENGINE names: it asks for an engine, hands signals on to it
and ends as it ends, by the same exit code or the same signal.
"""

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def warm_server() -> Iterator[str]:
    """Start the server; gives the value of BLOCKRATE_ENGINE. Does not wait for the imports: the first client does."""
    import subprocess
    import tempfile

    # pytest's own are too long for the name of a socket
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        path = f"{folder}/engine"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            listener.set_inheritable(True)
            command = [sys.executable, __file__, "serve", str(listener.fileno())]
            server = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        try:
            yield f"{sys.executable} -I -S {__file__} run {path}"
        finally:
            assert server.stdin
            server.stdin.close()
            server.wait(60)


def serve(listener: socket.socket) -> None:
    """Fork an engine for each request until stdin closes."""
    import select

    import_heavy()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            try:
                accompany(connection)
            finally:
                os._exit(0)  # whatever happens, only the first process goes on serving
        connection.close()


def import_heavy() -> None:
    """Everything that the engine imports, the classes it takes out of lazy packages too."""
    import gc

    import peft
    import torch
    from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
    from transformers import (
        CLIPTextModel,
        CLIPTokenizer,
        T5EncoderModel,
        T5TokenizerFast,
    )

    import blockrate.engine.train

    assert all(
        [
            peft,
            torch,
            AutoencoderKL,
            FluxPipeline,
            FluxTransformer2DModel,
            blockrate.engine.train,
        ]
    )
    assert all([CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast])
    gc.collect()
    gc.freeze()  # the children share these pages


def accompany(connection: socket.socket) -> None:
    """In a process between server and engine: fork the engine, tell its pid, wait for it, tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    stream = connection.makefile("rw")
    request = json.loads(stream.readline())
    pid = os.fork()
    if pid == 0:
        stream.close()
        connection.close()
        become_engine(request)
    os.setsid()
    with suppress(ConnectionError):  # the client was killed; the engine lives on
        print(pid, file=stream, flush=True)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(ConnectionError):
        print(code, file=stream, flush=True)


def become_engine(request: dict[str, object]) -> None:
    """Be what ``python -m blockrate.engine`` would be for this request; never returns."""
    code = 1
    try:
        os.setsid()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.chdir(str(request["folder"]))
        os.environ.clear()
        os.environ.update(request["environment"])  # type: ignore[call-overload]
        run = Path(str(request["run"]))
        log = os.open(run / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from blockrate.engine.__main__ import main

        sys.argv = ["blockrate.engine", str(run)]
        code = main(run)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(path: str, folder: str) -> int:
    """Ask the server at ``path`` for an engine on ``folder`` and give its exit code, negative for a signal."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        stream = connection.makefile("rw")
        request = {
            "run": folder,
            "folder": os.getcwd(),
            "environment": dict(os.environ),
        }
        print(json.dumps(request), file=stream, flush=True)
        engine = int(stream.readline() or sys.exit("the warm server is gone"))
        for number in SIGNALS:
            signal.signal(number, lambda number, _: os.kill(engine, number))
        return int(stream.readline() or sys.exit("the warm server is gone"))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(socket.socket(fileno=int(sys.argv[2])))
        os._exit(0)
    ended = run(sys.argv[2], sys.argv[3])
    if ended < 0:
        signal.signal(-ended, signal.SIG_DFL) if -ended not in (
            signal.SIGKILL,
            signal.SIGSTOP,
        ) else None
        os.kill(os.getpid(), -ended)
    sys.exit(ended)
