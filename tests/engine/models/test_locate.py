import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub as hub
import pytest
from huggingface_hub import errors
from support.fake_hub import FakeHub, stand_in
from support.model_folders import change_config

from blockrate.config.train_config import TrainConfig
from blockrate.core.blocks import BlockLayout
from blockrate.core.errors import BlockrateError, FileError, WriteError
from blockrate.engine.models import flux1, locate
from blockrate.engine.models.common import ModelFiles
from blockrate.models.families import FAMILIES

REPO = "black-forest-labs/FLUX.1-dev"
TOY = "tiny-flux1"
SPEC = replace(FAMILIES[TOY].spec, layout=BlockLayout(1, 1))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flux1.make_tiny(tmp_path_factory.mktemp("models") / "small", spec=SPEC)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def config(folder: Path | str, tmp_path: Path, **changes: object) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "base_model_name": str(folder),
            "cache_dir": str(tmp_path / "cache"),
            **changes,
        }
    )


def error_of(kind: type[errors.HfHubHTTPError], status: int) -> Exception:
    """One of huggingface_hub's own errors, with a secret in it as in real ones."""
    request = httpx2.Request(
        "GET",
        f"https://huggingface.co/api/models/{REPO}",
        headers={"authorization": "hf_SECRET"},
    )
    return kind(
        "401 Client Error: hf_SECRET", response=httpx2.Response(status, request=request)
    )


def test_a_local_folder_gives_all_parts_and_the_sizes(
    folder: Path, tmp_path: Path
) -> None:
    files = locate.locate(config(folder, tmp_path))
    assert files.family is flux1
    assert files.spec == SPEC
    assert files.parts["transformer"] == folder / "transformer"
    assert files.parts["text_encoder_2"] == folder / "text_encoder_2"


def test_the_toy_is_made_on_the_spot_and_only_once(tmp_path: Path) -> None:
    chosen = config(TOY, tmp_path)
    files = locate.locate(chosen)
    assert files.spec == FAMILIES[TOY].spec
    made = (files.parts["scheduler"].parent / "model_index.json").stat().st_mtime_ns
    assert locate.locate(chosen) == files
    assert (
        files.parts["scheduler"].parent / "model_index.json"
    ).stat().st_mtime_ns == made


def test_parts_may_come_from_elsewhere(
    original: Path, folder: Path, tmp_path: Path
) -> None:
    part = {"model_name": str(original / "vae")}
    whole = {"model_name": str(original)}
    files = locate.locate(
        config(folder, tmp_path, vae=part, text_encoder_2=whole, transformer=whole)
    )
    assert files.parts["vae"] == original / "vae"
    assert files.parts["text_encoder_2"] == original / "text_encoder_2"
    assert files.parts["transformer"] == original / "transformer"
    assert files.parts["text_encoder"] == folder / "text_encoder"


def test_every_missing_part_is_named_at_once(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "vae")
    (folder / "tokenizer_2/tokenizer_config.json").unlink()
    (folder / "text_encoder/model.safetensors").unlink()
    with pytest.raises(
        FileError, match=r"lacks vae, text_encoder \(model.safetensors\), tokenizer_2"
    ) as found:
        locate.locate(config(folder, tmp_path))
    assert found.value.exit_code == 65


def test_a_missing_shard_is_named(folder: Path, tmp_path: Path) -> None:
    weights = folder / "text_encoder_2"
    index = {
        "weight_map": {
            "a": "model-00001-of-00002.safetensors",
            "b": "model-00002-of-00002.safetensors",
        }
    }
    (weights / "model.safetensors.index.json").write_text(json.dumps(index))
    (weights / "model.safetensors").rename(weights / "model-00001-of-00002.safetensors")
    with pytest.raises(
        FileError, match=r"text_encoder_2 \(model-00002-of-00002.safetensors\)"
    ):
        locate.locate(config(folder, tmp_path))


@pytest.mark.parametrize(
    "part",
    ["vae/diffusion_pytorch_model", "text_encoder/model", "text_encoder_2/model"],
)
def test_cut_off_weights_are_named(folder: Path, tmp_path: Path, part: str) -> None:
    file = folder / f"{part}.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(FileError, match=file.name):
        locate.locate(config(folder, tmp_path))


@pytest.mark.parametrize("field", ["vae", "text_encoder"])
def test_a_file_where_a_folder_is_needed_is_refused(
    folder: Path, tmp_path: Path, field: str
) -> None:
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    with pytest.raises(FileError, match="must be in a folder"):
        locate.locate(config(folder, tmp_path, **{field: {"model_name": str(file)}}))


def test_a_single_file_alone_takes_the_rest_from_the_published_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any]] = []

    def download(repo: str, **wishes: Any) -> str:
        asked.append((repo, wishes["allow_patterns"]))
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    file = folder / "transformer/diffusion_pytorch_model.safetensors"
    files = locate.locate(config(file, tmp_path))
    assert files.parts["transformer"] == file
    assert files.parts["scheduler"] == folder / "scheduler"
    [(repo, patterns)] = asked
    assert repo == REPO
    assert not any(pattern.startswith("transformer/") for pattern in patterns)


def test_identities_change_with_weights_and_settings_and_with_nothing_else(
    folder: Path, tmp_path: Path
) -> None:
    def identities(**changes: object) -> tuple[str, str]:
        chosen = config(folder, tmp_path, **changes)
        files = locate.locate(chosen)
        return locate.image_identity(files, chosen), locate.prompt_identity(
            files, chosen
        )

    image, prompt = identities()
    assert identities(
        learning_rate=1.0, seed=3, resolution="512", train_dtype="FLOAT_32"
    ) == (image, prompt)
    for changes in (
        {"text_encoder_2": {"weight_dtype": "FLOAT_8"}},
        {"text_encoder": {"weight_dtype": "FLOAT_32"}},
        {"text_encoder_2_sequence_length": 512},
    ):
        assert identities(**changes)[0] == image
        assert identities(**changes)[1] != prompt
    in_eight = {"text_encoder_2": {"weight_dtype": "FLOAT_8"}}
    assert (
        identities(**in_eight, train_dtype="FLOAT_32")[1] != identities(**in_eight)[1]
    )
    other = identities(vae={"weight_dtype": "BFLOAT_16"})
    assert (other[0] != image, other[1]) == (True, prompt)
    weights = folder / "vae/diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert identities()[0] != image
    tokens = folder / "tokenizer/tokenizer.json"
    tokens.write_text(tokens.read_text() + " ")
    assert identities()[1] != prompt


def test_a_moved_model_keeps_its_identity(
    original: Path, folder: Path, tmp_path: Path
) -> None:
    one, other = (config(place, tmp_path) for place in (original, folder))
    files = locate.locate(one)
    moved = locate.locate(other)
    assert locate.prompt_identity(files, one) == locate.prompt_identity(moved, other)
    assert locate.image_identity(files, one) == locate.image_identity(moved, other)


def test_big_files_are_hashed_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(folder, tmp_path)
    files = locate.locate(chosen)
    first = locate.prompt_identity(files, chosen)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert locate.prompt_identity(files, chosen) == first
    monkeypatch.undo()
    (tmp_path / "cache/file-hashes.json").write_text("{torn")
    assert locate.prompt_identity(files, chosen) == first


def test_the_hubs_own_hash_is_taken_from_the_name_of_its_blob(tmp_path: Path) -> None:
    name = "a" * 64
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / name).write_text("weights")
    link = tmp_path / "model.safetensors"
    try:
        link.symlink_to(tmp_path / "blobs" / name)
    except OSError:
        pytest.skip("this system makes no links")
    assert locate._sha256(link, {}) == name


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            error_of(errors.GatedRepoError, 403),
            [f"https://huggingface.co/{REPO}", "hf auth login"],
        ),
        (
            error_of(errors.GatedRepoError, 401),
            [f"https://huggingface.co/{REPO}", "HF_TOKEN"],
        ),
        (
            error_of(errors.RepositoryNotFoundError, 404),
            ["no such model", "Check the name"],
        ),
        (errors.HFValidationError("hf_SECRET"), ["no such model"]),
        (error_of(errors.HfHubHTTPError, 401), ["401", "hf auth login"]),
        (error_of(errors.HfHubHTTPError, 503), ["503", "Try again later"]),
        (
            errors.LocalEntryNotFoundError("hf_SECRET"),
            ["cannot be reached", "Go online"],
        ),
        (errors.OfflineModeIsEnabled("hf_SECRET"), ["HF_HUB_OFFLINE"]),
        (httpx2.ConnectError("hf_SECRET"), ["cannot be reached"]),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            ["disk is full", "Free some space"],
        ),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_each_fault_of_the_hub_is_one_sentence_with_its_cure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Any,
    words: list[str],
    wrapped: bool,
) -> None:
    def refuse(_repo: str, *, local_files_only: bool = False, **_: object) -> str:
        if local_files_only:
            raise errors.LocalEntryNotFoundError("not here")
        if wrapped and not isinstance(error, OSError | errors.HFValidationError):
            raise errors.DryRunError("hf_SECRET") from error
        raise error

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(BlockrateError) as found:
        locate.locate(config(REPO, tmp_path))
    message = str(found.value)
    assert all(word in message for word in words), message
    assert "SECRET" not in message
    assert found.value.__cause__ is None or not isinstance(
        found.value.__cause__, errors.HfHubHTTPError
    )
    assert found.value.exit_code == (73 if "disk" in message else 65)


def test_identities_are_those_of_every_cache_made_before(tmp_path: Path) -> None:
    """Another one would encode everybody's images and captions anew, in silence."""
    encoders = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    parts = {}
    for part in ("transformer", "vae", *encoders, "scheduler"):
        parts[part] = tmp_path / part
        parts[part].mkdir()
        (parts[part] / "config.json").write_text(part)
    chosen = config(
        "no matter",
        tmp_path,
        text_encoder={"weight_dtype": "FLOAT_32"},
        text_encoder_2={"weight_dtype": "FLOAT_8"},
        train_dtype="BFLOAT_16",
    )
    files = ModelFiles(flux1, SPEC, parts)
    assert locate.image_identity(files, chosen) == (
        "99313aff22bedd8068cdb7c5dc21e7ff352795a64c7a6258d7836854c5802184"
    )
    assert locate.prompt_identity(files, chosen) == (
        "1ca827deac8aded98bf6c8bdbc5abd7fe2fbeb81230e8b99e417e17ad97e7ae7"
    )


@pytest.fixture
def fake_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    (folder / "flux1-dev.safetensors").write_bytes(b"not needed")
    (folder / "vae/diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not needed")
    (folder / "vae/diffusion_pytorch_model.bin").write_bytes(b"not safe")
    return stand_in(FakeHub(folder, tmp_path / "snapshot"), monkeypatch)


def test_only_what_is_needed_and_safe_is_downloaded_and_once(
    fake_hub: FakeHub, tmp_path: Path
) -> None:
    told = []
    files = locate.locate(
        config(REPO, tmp_path), lambda done, total: told.append((done, total))
    )
    assert files.spec == SPEC  # from the files, not from the row of FLUX.1-dev
    assert files.parts["scheduler"].parent == fake_hub.cache
    assert "transformer/diffusion_pytorch_model.safetensors" in fake_hub.fetched
    assert not any(
        name.endswith((".bin", ".fp16.safetensors", "flux1-dev.safetensors"))
        for name in fake_hub.fetched
    )
    assert told[0][0] == 0 < told[-1][0] < told[-1][1]
    count = len(fake_hub.fetched)
    locate.locate(config(REPO, tmp_path))
    assert len(fake_hub.fetched) == count


def test_an_interrupted_download_goes_on(fake_hub: FakeHub, tmp_path: Path) -> None:
    locate.locate(config(REPO, tmp_path))
    (fake_hub.cache / "text_encoder_2/model.safetensors").unlink()
    fake_hub.fetched.clear()
    locate.locate(config(REPO, tmp_path))
    assert fake_hub.fetched == ["text_encoder_2/model.safetensors"]


def test_too_little_disk_space_is_told_before_the_download(
    fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage(os.curdir))(total=100, used=99, free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        WriteError, match=r"FLUX.1-dev needs \d\.\d MiB, and 0\.0 MiB are free.*HF_HOME"
    ):
        locate.locate(config(REPO, tmp_path))
    assert fake_hub.fetched == []


@pytest.mark.parametrize(
    ("file", "facts", "words"),
    [
        (
            "transformer/config.json",
            {"_class_name": "Flux3Transformer2DModel"},
            "Flux3",
        ),
        ("transformer/config.json", {"in_channels": 128, "out_channels": 64}, "Canny"),
        (
            "transformer/config.json",
            {"in_channels": 384, "out_channels": 64},
            "FLUX_FILL_DEV_1",
        ),
        ("model_index.json", {"_class_name": "SomebodysPipeline"}, "model_variant"),
    ],
)
def test_a_model_that_cannot_train_is_refused_before_its_weights_come(
    fake_hub: FakeHub, tmp_path: Path, file: str, facts: dict[str, Any], words: str
) -> None:
    change_config(fake_hub.source / file, **facts)
    for _again in range(2):
        with pytest.raises(BlockrateError) as found:
            locate.locate(config("somebody/some-model", tmp_path))
        assert words in str(found.value)
        assert "\n" not in str(found.value)
        assert set(fake_hub.fetched) == {"model_index.json", "transformer/config.json"}


def test_a_repository_without_a_transformer_is_refused_before_the_download(
    fake_hub: FakeHub, tmp_path: Path
) -> None:
    (fake_hub.source / "transformer/config.json").unlink()
    with pytest.raises(FileError, match=r"somebody/lora: has no transformer/config"):
        locate.locate(config("somebody/lora", tmp_path))
    assert fake_hub.fetched == []
