"""Files that come from a browser, in pieces: each piece is one request, and a lost connection costs one piece.

The browser never names a path in an address: the server gives each file an id, knows where it belongs, and looks into
it when the last piece is there.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from typing import NamedTuple
from weakref import WeakValueDictionary

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from blockrate.core.errors import BlockrateError
from blockrate.run.durable import check_space, disk_errors, make_folder
from blockrate.ui.arrivals import Arrived, Limits, There, stay_inside, take_in

# a piece; the guard takes a request of 1 MiB
PIECE = 960 * 1024
_MOST = 50_000  # files that are expected at one time
_FORGOTTEN = 24 * 3600  # seconds after which half a file is nobody's any more


class Announced(NamedTuple):
    """What a browser says of a file that it has. ``changed``: when, as it tells it."""

    name: str
    size: int
    changed: int


@dataclass
class Expected:
    """A file that was announced: how large it is, where it goes, and the part that is there.

    ``busy``: one for a part, whoever sends it: two pages may bring the same file.
    """

    name: str
    size: int
    folder: Path
    part: Path
    there: There
    told: Callable[[Arrived], None]
    busy: asyncio.Lock
    arrived: Arrived | None = None

    @property
    def offset(self) -> int:
        """How many bytes are there."""
        with suppress(OSError):
            return self.part.stat().st_size
        return 0


class Uploads:
    """What is on its way. ``limits``: see ``Limits``."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._expected: dict[str, Expected] = {}
        self._busy: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()

    def make_room(self, folder: Path, need: int) -> None:
        """Make a folder that so many bytes are to come into. Raises WriteError where they have no room."""
        make_folder(folder)
        _sweep(folder)
        check_space(folder, need, "what is to come")

    def expect(
        self,
        file: Announced,
        folder: Path,
        there: There,
        told: Callable[[Arrived], None],
    ) -> str:
        """Return the id under which a file may come; what is there of it already counts."""
        name, size, changed = file
        same = f"{size}/{changed}/{name}".encode(errors="replace")
        mark = hashlib.sha256(same).hexdigest()
        part = folder / f".upload-{mark[:24]}.part"
        while len(self._expected) >= _MOST:
            del self._expected[next(iter(self._expected))]
        given = token_urlsafe(16)
        busy = self._busy.setdefault(part, asyncio.Lock())
        self._expected[given] = Expected(name, size, folder, part, there, told, busy)
        return given

    def offset(self, given: str) -> int | None:
        """How many bytes of a file are there; None for an id that nobody has."""
        expected = self._expected.get(given)
        return expected.offset if expected else None

    async def answer(self, request: Request, given: str) -> Response:
        """Take a piece (PUT, ``?at=`` its first byte), or say how much is there (GET)."""
        expected = self._expected.get(given)
        if expected is None:
            return PlainTextResponse("Nobody expects this file.", 404)
        if request.method == "GET":
            return JSONResponse({"offset": expected.offset})
        if "origin" not in request.headers:
            return PlainTextResponse("A piece comes from our own page.", 403)
        at = request.query_params.get("at", "")
        piece = await request.body()
        async with expected.busy:
            if expected.arrived:
                return JSONResponse({"offset": expected.size, "done": True})
            if not at.isdecimal() or int(at) != expected.offset:
                return JSONResponse({"offset": expected.offset}, 409)
            if expected.offset + len(piece) > expected.size:
                return PlainTextResponse("This is more than was announced.", 413)
            try:
                await asyncio.to_thread(self._take, expected, piece)
            except (BlockrateError, OSError) as error:
                return PlainTextResponse(str(error), 507)
            if expected.arrived is None:
                return JSONResponse({"offset": expected.offset})
            expected.told(expected.arrived)
            return JSONResponse({"offset": expected.size, "done": True})

    def _take(self, expected: Expected, piece: bytes) -> None:
        """Add a piece; with the last one look into the file. Raises FileError, WriteError, OSError."""
        stay_inside(expected.part, expected.folder)
        with disk_errors(expected.part), expected.part.open("ab") as file:
            file.write(piece)
        if expected.offset < expected.size:
            return
        with disk_errors(expected.folder):
            expected.arrived = take_in(
                expected.part,
                expected.name,
                expected.folder,
                self.limits,
                expected.there,
            )


def _sweep(folder: Path) -> None:
    """Remove halves of files that nobody has gone on with for a day."""
    for part in (*folder.glob(".upload-*.part"), *folder.glob(".arriving-*")):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _FORGOTTEN:
                part.unlink()
