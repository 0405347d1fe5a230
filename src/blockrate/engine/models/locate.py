"""Where the parts of a model lie, that they are whole and fit each other, and what their contents are called."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from blockrate.config.base_model import (
    caption_tokens,
    draws_against_nothing,
    model_paths,
    model_spec,
    refuse_another_type,
    refuse_variant,
    told_variant,
)
from blockrate.config.partners import refuse_partners
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import FileError
from blockrate.engine.models import FAMILY_MODULES
from blockrate.engine.models.common import ModelFiles
from blockrate.engine.models.download import Progress, from_hub
from blockrate.models.families import (
    FAMILIES,
    TransformerSpec,
    is_toy,
    spec_from_config,
)
from blockrate.models.files import folder_here
from blockrate.models.hub import repo_of
from blockrate.models.part_files import lack_of, part_files, read_config
from blockrate.models.savings import FEW_BITS
from blockrate.models.whole import check_parts, check_transformer
from blockrate.run.durable import atomic_write, make_folder


def locate(
    config: TrainConfig,
    progress: Progress = lambda done, total: None,
    warn: Callable[[str], None] = lambda message: None,
) -> ModelFiles:
    """Find every part of the model, download what only the hub has, and check it by headers. Loads no weights.

    ``warn`` is told what a file holds and nobody uses. Raises FileError for what is missing, damaged, left over, of
    another model or not to be had, WriteError without disk space.
    """
    spec = model_spec(config)
    paths = model_paths(
        config,
        spec,
        lambda name, parts: _folder(name, parts, config, progress),
    )
    if paths["transformer"].is_dir():  # a hub id says less than the files that came
        config = _with_transformer(config, paths["transformer"])
        _refuse_another_model(config, spec)
    _check(paths)
    spec = model_spec(config)
    refuse_variant(config, spec)
    refuse_partners(config, spec)
    check_parts(paths, spec)
    for message in check_transformer(paths["transformer"], spec):
        warn(message)
    negative = "" if draws_against_nothing(config, spec) else None
    variant = told_variant(config, spec) or ""
    family = FAMILY_MODULES[spec.architecture]
    return ModelFiles(family, spec, paths, negative, variant)


def image_identity(files: ModelFiles, config: TrainConfig) -> str:
    """Return a hash of all that latents hang on beside the image: the VAE's weights and precision."""
    return _identity(config.cache_dir, files, ["vae"], [config.vae.weight_dtype])


def prompt_identity(files: ModelFiles, config: TrainConfig) -> str:
    """Return a hash of all that embeddings hang on beside the caption: encoders, tokenizers, precision, length."""
    encoders = [part for part in files.parts if part.startswith("text_encoder")]
    tokenizers = [part for part in files.parts if part.startswith("tokenizer")]
    forms = [getattr(config, part).weight_dtype for part in encoders]
    computed = [config.train_dtype if form in FEW_BITS else form for form in forms]
    facts = [*forms, *computed, caption_tokens(config, files.spec)]
    return _identity(config.cache_dir, files, [*encoders, *tokenizers], facts)


def _identity(
    cache_dir: str, files: ModelFiles, parts: Iterable[str], facts: Iterable[object]
) -> str:
    """Hash the files of parts by content. What is known of a big file (T5: 10 GB) is kept in the cache folder."""
    memo_file = Path(cache_dir) / "file-hashes.json"
    memo = _read_memo(memo_file)
    before = dict(memo)
    hashes = []
    for part in parts:
        for file in part_files(part, files.parts[part]):
            hashes.append((file.name, _sha256(file, memo)))
    if memo != before:
        make_folder(memo_file.parent)
        atomic_write(memo_file, json.dumps(memo))
    return hashlib.sha256(json.dumps([hashes, list(facts)]).encode()).hexdigest()


def _read_memo(file: Path) -> dict[str, list[object]]:
    """Return what is known of files: size, two times and SHA-256. What cannot be read, or is not that, is not known."""
    known: dict[str, list[object]] = {}
    with suppress(OSError, ValueError, RecursionError):
        rows = json.loads(file.read_bytes()) if file.is_file() else {}
        for name, row in rows.items() if isinstance(rows, dict) else ():
            if isinstance(row, list) and len(row) == 4 and _is_sha256(row[3]):
                known[name] = row
    return known


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value))


def _sha256(file: Path, memo: dict[str, list[object]]) -> str:
    file = file.resolve()
    if file.parent.name == "blobs" and _is_sha256(file.name):
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


def _with_transformer(config: TrainConfig, folder: Path) -> TrainConfig:
    """Return the config with the transformer by its folder."""
    known = config.transformer.model_copy(update={"model_name": str(folder)})
    return config.model_copy(update={"transformer": known})


def _look(config: TrainConfig, snapshot: Path) -> None:
    """Refuse by its configs alone a model of the hub that cannot train: before its weights come, which are many GB."""
    folder = snapshot / "transformer"
    config_file = folder / "config.json"
    if not config_file.is_file():  # what is missing is told by name later
        return
    spec = spec_from_config(read_config(config_file), str(config_file))
    known = _with_transformer(config, folder)
    refuse_another_type(known, spec)
    refuse_variant(known, spec)
    refuse_partners(known, spec)


def _refuse_another_model(config: TrainConfig, expected: TransformerSpec) -> None:
    """Refuse files that came of a model of another architecture than its name and its type made expect."""
    with suppress(FileError):  # what is damaged or missing is told later
        spec = model_spec(config)
        if spec.architecture != expected.architecture:
            refuse_another_type(config, spec)


def _check(paths: Mapping[str, Path]) -> None:
    """Refuse what lacks a part."""
    lacking = [lack for part, path in paths.items() if (lack := lack_of(part, path))]
    if lacking:
        where = paths["scheduler"].parent
        raise FileError(
            str(where),
            f"lacks {', '.join(lacking)}",
            "Copy or download the model again, as a whole.",
        )


def _folder(
    name: str, parts: list[str], config: TrainConfig, progress: Progress
) -> Path:
    """Return the local folder of a model that a config names; a toy is made, and what the hub has comes from there."""
    folder = folder_here(name, config.cache_dir)
    if folder is None:
        return from_hub(repo_of(name), parts, progress, partial(_look, config))
    if is_toy(name) and not folder.is_dir():
        spec = FAMILIES[name].spec
        return FAMILY_MODULES[spec.architecture].make_tiny(folder, spec=spec)
    return folder
