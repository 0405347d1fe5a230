"""Files as one zip that is made while it is sent."""

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from blockrate.core.errors import ConfigError
from blockrate.ui.live.samples import by_prompt, words_of
from blockrate.ui.sample_zip import zipped


def test_an_archive_holds_every_byte_and_is_never_whole_in_memory(
    tmp_path: Path,
) -> None:
    files = []
    for number in range(8):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(bytes([number]) * (5 * 2**20))
        files.append((f"é {number}.bin", path))
    sent = tmp_path / "sent.zip"
    tracemalloc.start()
    with sent.open("wb") as stream:
        for piece in zipped(files, may_go=lambda path: None):
            stream.write(piece)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**23, "a portion or two at a time"
    with ZipFile(sent) as archive:
        for name, path in files:
            assert archive.read(name) == path.read_bytes()


def test_what_may_not_go_or_is_gone_is_left_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)

    def refuse(path: Path) -> None:
        if path.name == "b":
            raise ConfigError("path", "may not go")

    def files() -> Iterator[tuple[str, Path]]:
        for name in ("a", "b", "c"):
            if name == "c":
                (tmp_path / "c").unlink()
            yield name, tmp_path / name

    data = b"".join(zipped(files(), may_go=refuse))
    with ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["a"]


@pytest.mark.parametrize("folder", ["samples", "samples/without-ema"])
def test_what_was_drawn_without_the_average_is_a_prompt_of_its_own(
    folder: str,
) -> None:
    name = f"{folder}/step-00000020-0-a-cat.png"
    files = ["samples/step-00000020-0-a-cat.png"] + [name] * (folder != "samples")
    found = by_prompt({20: files}, Path())
    words = [words_of(prompt) for prompt in found]
    assert words == ["a cat", "a cat without ema"][: len(files)]
