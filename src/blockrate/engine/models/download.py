"""What the hub's client downloads, into its own cache, and what to say when it cannot."""

import errno
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from blockrate.core.errors import BlockrateError, FileError
from blockrate.models.part_files import WEIGHTS, lack_of
from blockrate.run.durable import check_space, write_error

_NO_SPACE = "Free some space, or set HF_HOME to a folder on another disk."
_CONFIG = "transformer/config.json"
# Small, and by them a model that cannot train is refused before its weights come.
_TELLING = ("model_index.json", _CONFIG)
Progress = Callable[[int, int], None]  # bytes done, bytes in all


def from_hub(
    repo: str, parts: Sequence[str], progress: Progress, look: Callable[[Path], None]
) -> Path:
    """Return the snapshot of a hub model in the hub's own cache, downloaded as far as ``parts`` need it.

    ``look`` is given the snapshot when it holds what says which model it is, and may raise before the rest comes.

    Raises FileError for what is not to be had, WriteError without disk space.
    """
    import huggingface_hub as hub
    from huggingface_hub import errors

    patterns = _patterns(parts)
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
        if "transformer" in parts:
            _refuse_without_transformer(repo, listed)
        _fetch(repo, listed, progress, look)
        return Path(hub.snapshot_download(repo, allow_patterns=patterns))
    except BlockrateError:
        raise
    except Exception as error:  # the hub's clients raise many kinds
        raise _hub_error(repo, error) from None  # their text may hold a signed address


def _fetch(
    repo: str, listed: Sequence[Any], progress: Progress, look: Callable[[Path], None]
) -> None:
    """Download what is not here yet: first what tells the model, and after a look at it the rest."""
    import huggingface_hub as hub
    from huggingface_hub import constants

    files = [file for file in listed if file.will_download]
    total = sum(file.file_size or 0 for file in files)
    cache = Path(constants.HF_HUB_CACHE)
    there = next(path for path in (cache, *cache.parents) if path.exists())
    check_space(there, total, f"what is missing of {repo}", cure=_NO_SPACE)
    done = 0
    telling = [file for file in files if file.filename in _TELLING]
    rest = [file for file in files if file not in telling]
    configs = [Path(file.local_path) for file in listed if file.filename == _CONFIG]
    for place, file in enumerate([*telling, *rest]):
        if place == len(telling):
            for config in configs:
                look(config.parents[1])
        progress(done, total)
        hub.hf_hub_download(repo, file.filename, revision=file.commit_hash)
        done += file.file_size or 0


def _refuse_without_transformer(repo: str, listed: Sequence[Any]) -> None:
    if any(file.filename == _CONFIG for file in listed):
        return
    problem = f"has no {_CONFIG}, so it is no whole model in diffusers' form"
    cure = "Name another one, or download its .safetensors file and name that."
    raise FileError(repo, problem, cure)


def _patterns(parts: Sequence[str]) -> list[str]:
    """Return which files of a repository the parts need: no pickles, no second precision."""
    patterns = ["model_index.json"]  # which says whether a model is a distilled one
    for part in parts:
        patterns += [f"{part}/*.{kind}" for kind in ("json", "txt", "model", "jinja")]
        if part in WEIGHTS:
            weights = f"{part}/{WEIGHTS[part]}"
            patterns += [f"{weights}.safetensors", f"{weights}-*.safetensors"]
    return patterns


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
