"""Pieces of files as the server takes them: two pages that bring the same one, and a folder that becomes a link."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from starlette.requests import Request
from support.loops import run_apart
from support.made_files import png

from blockrate.core.errors import WriteError
from blockrate.ui.arrivals import Arrived, Limits, There
from blockrate.ui.uploads import Announced, Expected, Uploads


def announce(uploads: Uploads, folder: Path, changed: int, size: int) -> str:
    file = Announced("a.png", size, changed)
    return uploads.expect(file, folder, There.KEEP_BOTH, Arrived().add)


async def put(uploads: Uploads, given: str, at: int, piece: bytes) -> int:
    """Send a piece; return the status."""

    async def receive() -> dict[str, object]:
        # the server answers others meanwhile
        await asyncio.sleep(0)
        return {"type": "http.request", "body": piece}

    scope = {
        "type": "http",
        "method": "PUT",
        "path": "/",
        "query_string": f"at={at}".encode(),
        "headers": [(b"origin", b"http://here")],
    }
    return (await uploads.answer(Request(scope, receive), given)).status_code


async def put_all(uploads: Uploads, ids: Sequence[str], piece: bytes) -> list[int]:
    return await asyncio.gather(*(put(uploads, given, 0, piece) for given in ids))


def test_two_pages_that_bring_the_same_file_at_once_mix_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_slowly(uploads: Uploads, expected: Expected, piece: bytes) -> None:
        time.sleep(0.05)
        take(uploads, expected, piece)

    take = Uploads._take
    monkeypatch.setattr(Uploads, "_take", take_slowly)
    uploads = Uploads(Limits())
    content = png(size=(200, 200))
    ids = [announce(uploads, tmp_path, 1, len(content)) for _ in range(2)]
    half = content[: len(content) // 2]
    assert sorted(run_apart(put_all(uploads, ids, half))) == [200, 409]
    assert {uploads.offset(given) for given in ids} == {len(half)}


def test_half_of_another_file_of_this_name_and_size_is_not_gone_on_with(
    tmp_path: Path,
) -> None:
    uploads = Uploads(Limits())
    first = announce(uploads, tmp_path, 1, 100)
    run_apart(put(uploads, first, 0, b"x" * 50))
    assert uploads.offset(announce(uploads, tmp_path, 1, 100)) == 50
    assert uploads.offset(announce(uploads, tmp_path, 2, 100)) == 0


def test_a_folder_that_becomes_a_link_takes_nothing_more(tmp_path: Path) -> None:
    uploads = Uploads(Limits())
    folder = tmp_path / "photos"
    outside = tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    given = announce(uploads, folder, 1, len(png()))
    folder.rmdir()
    folder.symlink_to(outside)
    assert run_apart(put(uploads, given, 0, png())) == 507
    assert list(outside.iterdir()) == []


def test_all_that_is_to_come_has_to_find_room(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="what is to come needs"):
        Uploads(Limits()).make_room(tmp_path / "photos", 2**60)
