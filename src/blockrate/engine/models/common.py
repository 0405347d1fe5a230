"""Where the parts of a FLUX.1 lie, that they are whole and fit each other, and what their contents are called."""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blockrate.config.base_model import model_paths, model_spec
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError, FileError, WriteError
from blockrate.engine.models import tiny
from blockrate.models.families import FAMILIES, TransformerSpec
from blockrate.models.files import WEIGHTS, lack_of, read_header, weight_files
from blockrate.run.durable import atomic_write, make_folder, write_error

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True)
class ModelFiles:
    """A model on this computer. ``folder``: diffusers' layout, for scheduler and tokenizers; then the four models."""

    folder: Path
    spec: TransformerSpec
    transformer: Path  # a folder, or a single .safetensors file
    vae: Path
    text_encoder: Path
    text_encoder_2: Path


def locate(
    config: TrainConfig, progress: Progress = lambda done, total: None
) -> ModelFiles:
    """Find every part of the model, download what only the hub has, and check it by headers. Loads no weights.

    Raises FileError for what is missing, damaged, of another model or not to be had, WriteError without disk space.
    """
    spec = model_spec(config)
    paths = model_paths(
        config,
        spec.architecture,
        lambda name, parts: _folder(name, parts, config, progress),
    )
    _check(paths)
    if paths["transformer"].is_dir():  # a hub id says less than the files that came
        known = config.transformer.model_copy(
            update={"model_name": str(paths["transformer"])}
        )
        spec = model_spec(config.model_copy(update={"transformer": known}))
    return ModelFiles(
        paths["scheduler"].parent,
        spec,
        **{part: paths[part] for part in WEIGHTS},
    )


def image_identity(files: ModelFiles, config: TrainConfig) -> str:
    """Return a hash of all that latents hang on beside the image: the VAE's weights and precision."""
    return _identity(config, [files.vae], [config.vae.weight_dtype])


def prompt_identity(files: ModelFiles, config: TrainConfig) -> str:
    """Return a hash of all that embeddings hang on beside the caption: encoders, tokenizers, precision, length."""
    folders = [
        files.text_encoder,
        files.text_encoder_2,
        files.folder / "tokenizer",
        files.folder / "tokenizer_2",
    ]
    forms = [config.text_encoder.weight_dtype, config.text_encoder_2.weight_dtype]
    computed = [
        config.train_dtype if form in ("FLOAT_8", "NFLOAT_4") else form
        for form in forms
    ]
    return _identity(
        config, folders, [*forms, *computed, config.text_encoder_2_sequence_length]
    )


def _identity(
    config: TrainConfig, folders: Iterable[Path], facts: Iterable[object]
) -> str:
    """Hash the files of folders by content. What is known of a big file (T5: 10 GB) is kept in the cache folder."""
    memo_file = Path(config.cache_dir) / "file-hashes.json"
    memo = {}
    with suppress(OSError, ValueError):
        memo = json.loads(memo_file.read_bytes())
    before = dict(memo)
    kinds = (".safetensors", ".json", ".txt", ".model")
    files = [
        file
        for folder in folders
        for file in sorted(folder.iterdir())
        if file.suffix in kinds
    ]
    hashes = [(file.name, _sha256(file, memo)) for file in files]
    if memo != before:
        make_folder(memo_file.parent)
        atomic_write(memo_file, json.dumps(memo))
    return hashlib.sha256(json.dumps([hashes, list(facts)]).encode()).hexdigest()


def _sha256(file: Path, memo: dict[str, list[object]]) -> str:
    file = file.resolve()
    if file.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", file.name):
        return file.name  # the hub's cache calls a big file by its SHA-256
    state = file.stat()
    known = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
    if memo.get(str(file), [])[:3] != known:
        with file.open("rb") as stream:
            memo[str(file)] = [
                *known,
                hashlib.file_digest(stream, "sha256").hexdigest(),
            ]
    return str(memo[str(file)][3])


def _check(paths: Mapping[str, Path]) -> None:
    """Refuse what lacks a part or is cut off."""
    lacking = [lack for part, path in paths.items() if (lack := lack_of(part, path))]
    if lacking:
        where = paths["scheduler"].parent
        raise FileError(
            str(where),
            f"lacks {', '.join(lacking)}",
            "Copy or download the model again, as a whole.",
        )
    for part, path in paths.items():
        for file in weight_files(part, path):
            read_header(file)


def _folder(
    name: str, parts: list[str], config: TrainConfig, progress: Progress
) -> Path:
    """The local folder of a model that a config names: a path, the toy, or a hub id."""
    if name == tiny.NAME:
        folder = Path(config.cache_dir) / "models" / tiny.NAME
        return folder if folder.is_dir() else tiny.make_tiny_flux(folder)
    repo = FAMILIES[name].repo if name in FAMILIES else name
    return Path(name) if Path(name).is_dir() else _from_hub(repo, parts, progress)


def _from_hub(repo: str, parts: list[str], progress: Progress) -> Path:
    """Give the snapshot of a hub model in the hub's own cache, downloaded as far as needed."""
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    patterns = [
        f"{part}/*.{kind}" for part in parts for kind in ("json", "txt", "model")
    ]
    patterns += [
        f"{part}/{WEIGHTS[part]}{end}.safetensors"
        for part in parts
        if part in WEIGHTS
        for end in ("", "-*")
    ]
    try:
        # what was used once stays: a run resumes on the same model
        with suppress(errors.LocalEntryNotFoundError):
            folder = Path(
                hub.snapshot_download(
                    repo, allow_patterns=patterns, local_files_only=True
                )
            )
            if not any(lack_of(part, folder / part) for part in parts):
                return folder
        listed = hub.snapshot_download(repo, allow_patterns=patterns, dry_run=True)
        files = [file for file in listed if file.will_download]
        total = sum(file.file_size or 0 for file in files)
        done = 0
        _check_space(repo, total, Path(constants.HF_HUB_CACHE))
        for file in files:
            progress(done, total)
            hub.hf_hub_download(repo, file.filename, revision=file.commit_hash)
            done += file.file_size or 0
        return Path(hub.snapshot_download(repo, allow_patterns=patterns))
    except BlockrateError:
        raise
    except Exception as error:  # the hub's clients raise many kinds
        raise _hub_error(repo, error) from None  # their text may hold a signed address


def _check_space(repo: str, need: int, cache: Path) -> None:
    free = shutil.disk_usage(
        next(path for path in (cache, *cache.parents) if path.exists())
    ).free
    if need > free:
        problem = (
            f"{repo} needs {need / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are free"
        )
        raise WriteError(
            str(cache),
            problem,
            "Free some space, or set HF_HOME to a folder on another disk.",
        )


def _hub_error(repo: str, error: BaseException) -> BlockrateError:
    """The sentence for what went wrong between us and the hub."""
    from huggingface_hub import errors

    match (
        (error.__cause__ or error) if isinstance(error, errors.DryRunError) else error
    ):
        case errors.GatedRepoError():
            problem = "is open only to those who accepted its licence"
            cure = f"Accept it at https://huggingface.co/{repo}, then log in by `hf auth login`, or set HF_TOKEN."
        case errors.RepositoryNotFoundError() | errors.HFValidationError():
            problem = "there is no such folder here, and no such model on the hub"
            cure = "Check the name; for a private model log in by `hf auth login`."
        case errors.HfHubHTTPError(response=response):
            problem = f"the hub refuses with code {response.status_code}"
            cure = (
                "Log in again by `hf auth login`."
                if response.status_code in (401, 403)
                else "Try again later."
            )
        case (
            OSError(
                errno=errno.ENOSPC | errno.EDQUOT | errno.EACCES | errno.EROFS
            ) as full
        ):
            return write_error(Path(full.filename or "the hub's cache"), full)
        case unreached:
            problem = f"is not on this computer, and the hub cannot be reached ({type(unreached).__name__})"
            cure = "Go online (HF_HUB_OFFLINE must be unset) and start again, or name a local folder."
    return FileError(repo, problem, cure)
