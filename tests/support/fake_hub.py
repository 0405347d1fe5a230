"""A hub without a network."""

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub as hub
import pytest
from huggingface_hub import errors
from huggingface_hub.utils._paths import filter_repo_objects

PATCHED = ("snapshot_download", "hf_hub_download")


class FakeHub:
    """Stands for the network: lists the files of a folder and copies each on request."""

    def __init__(self, source: Path, cache: Path) -> None:
        self.source = source
        self.cache = cache
        self.fetched: list[Any] = []

    def snapshot_download(
        self,
        _repo: str,
        *,
        allow_patterns: list[str],
        local_files_only: bool = False,
        dry_run: bool = False,
    ) -> str | list[Any]:
        names = [
            file.relative_to(self.source).as_posix()
            for file in self.source.rglob("*")
            if file.is_file()
        ]
        wanted = list(filter_repo_objects(names, allow_patterns=allow_patterns))
        if local_files_only and not self.cache.exists():
            raise errors.LocalEntryNotFoundError("not here")
        if not dry_run:
            return str(self.cache)
        return [
            hub.DryRunFileInfo(
                "c0ffee",
                (self.source / n).stat().st_size,
                n,
                str(self.cache / n),
                here,
                not here,
            )
            for n in wanted
            for here in [(self.cache / n).exists()]
        ]

    def hf_hub_download(self, _repo: str, name: str, *, revision: str) -> None:
        assert revision == "c0ffee"
        (self.cache / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.source / name, self.cache / name)
        self.fetched.append(name)


def stand_in(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """Let a fake hub answer in the place of the hub's client."""
    for name in PATCHED:
        monkeypatch.setattr(hub, name, getattr(fake, name))
    return fake
