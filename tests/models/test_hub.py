"""Where downloads lie, by the rules of the hub's own client."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from blockrate.models.families import FAMILIES
from blockrate.models.hub import is_gated, is_logged_in, repo_of, snapshot_folder


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "hub"


@pytest.mark.parametrize("repo", ["black-forest-labs/FLUX.1-dev", "a.b/c_d-e", "old"])
def test_a_snapshot_lies_where_the_client_puts_it(downloads: Path, repo: str) -> None:
    place = downloads / repo_folder_name(repo_id=repo, repo_type="model")
    assert snapshot_folder(repo) == place / "snapshots" / "none"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("c0ffee\n")
    assert snapshot_folder(repo) == place / "snapshots" / "c0ffee"


def test_a_login_is_a_token_in_a_file_or_in_the_environment(
    downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_logged_in()
    (downloads.parent / "token").write_text("hf_x")
    assert is_logged_in()
    (downloads.parent / "token").unlink()
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert is_logged_in()


def test_a_model_is_known_by_its_name_and_by_its_hub_id() -> None:
    for family in FAMILIES.values():
        assert repo_of(family.name) == family.repo
        assert is_gated(family.repo) is family.gated
    assert repo_of("somebody/flux") == "somebody/flux"
    assert not is_gated("somebody/flux")
