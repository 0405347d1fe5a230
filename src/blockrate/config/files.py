"""Config files: read, migrate, apply ``--set``, validate; every mistake is told at once, before anything is loaded."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from os.path import expanduser
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from blockrate.config.explain import contradictions, notices
from blockrate.config.fork_rates import drop_nulls, fork_notices, mend_sums
from blockrate.config.named_files import folder_of, where_looked_for
from blockrate.config.not_json import DOCS
from blockrate.config.onetrainer import migrate, migrate_lists, other_model
from blockrate.config.onetrainer_absent import fill_absent
from blockrate.config.onetrainer_gpus import read_many_gpus
from blockrate.config.onetrainer_models import read_for_model
from blockrate.config.onetrainer_samples import round_sizes
from blockrate.config.paths import drop, last_first, put
from blockrate.config.plan import filter_problems
from blockrate.config.rate_errors import told_together
from blockrate.config.reading import (
    Json,
    nested_too_deeply,
    parse_value,
    read_json,
    read_object,
)
from blockrate.config.told_together import places, together
from blockrate.config.train_config import FOLDER, TrainConfig
from blockrate.config.unsupported import take_unsupported, words_of
from blockrate.config.value_errors import explain
from blockrate.core.errors import ConfigError
from blockrate.core.plain_files import is_there
from blockrate.models.families import lora_forms


class ListFile(NamedTuple):
    """A file of its own for a list: the setting that names it, and the name that OneTrainer gives it."""

    setting: str
    default: str


LISTS = {
    "concepts": ListFile("concept_file_name", "training_concepts/concepts.json"),
    "samples": ListFile("sample_definition_file_name", "training_samples/samples.json"),
}
# of a fine-tune, whose result is a folder
FINE_TUNE_DEFAULTS = {
    "output_model_format": FOLDER,
    "output_model_destination": "models/model",
}
_OF_BLOCKS = ("blocks", "attn-mlp", "attn-only")
# unknown names that are more than slips
_MANY_UNKNOWN = 5
# so many wrong settings are left out, to see what else is wrong
_MOST_LEFT_OUT = 500
# what blocks there are hangs on these
_NAME_THE_MODEL = ("base_model_name", "model_type", "transformer.model_name")


def defaults_of(data: Json) -> Json:
    """Return what is meant by settings that a config leaves out: a fine-tune's, or the form of its model's LoRAs.

    That form where the filter names blocks alone: not every form holds what lies outside of them.
    """
    if data.get("training_method") == "FINE_TUNE":
        form = data.get("output_model_format", FOLDER)
        return FINE_TUNE_DEFAULTS if form == FOLDER else {}
    of_blocks = data.get("layer_filter_preset") in _OF_BLOCKS
    if not of_blocks or data.get("layer_filter"):
        return {}
    forms = lora_forms(str(data.get("model_type", "")))
    return {"output_model_format": forms[0]} if forms else {}


Further = Callable[[TrainConfig], list[ConfigError]]


@dataclass(frozen=True)
class LoadedConfig:
    """A valid config, and what the user should hear about it."""

    config: TrainConfig
    warnings: list[str]


@dataclass(frozen=True)
class Findings:
    """What a config comes to: itself where nothing is wrong, else every error.

    ``unsaid``: what the config does not say itself, or not as it is read: concepts and samples that lie in files of
    their own, or are none; what OneTrainer takes for a name that is absent; tidied block rates.
    """

    config: TrainConfig | None
    errors: list[ConfigError]
    warnings: list[str]
    unsaid: Json


def load_config(
    path: Path | str, *, overrides: Sequence[str] = (), ignore_unsupported: bool = False
) -> LoadedConfig:
    """Return the config in a JSON file of blockrate or OneTrainer, of any version.

    ``overrides``: ``path=value`` each, as in ``--set``. Raises one ``ConfigError`` that lists everything wrong.
    """
    return parse_config(
        read_object(Path(path)),
        overrides=overrides,
        ignore_unsupported=ignore_unsupported,
        where=str(path),
    )


def parse_config(
    data: Json,
    *,
    overrides: Sequence[str] = (),
    ignore_unsupported: bool = False,
    where: str = "config",
    further: Further = filter_problems,
) -> LoadedConfig:
    """Return the config in a parsed JSON object, which is used up; see ``load_config``.

    ``further``: what else to look for in a config that is wrong anyhow, so that it is all told in one go.
    """
    try:
        order = places(data)
        warnings = migrate(data)
        errors = _override(data, overrides)
        findings = find_problems(
            data,
            ignore_unsupported=ignore_unsupported,
            beside=folder_of(where),
            further=further,
        )
    except RecursionError as error:
        raise nested_too_deeply(where) from error
    errors += findings.errors
    if errors or not findings.config:
        raise together(where, errors, order, _of_another_program(order, errors))
    return LoadedConfig(findings.config, warnings + findings.warnings)


def find_problems(
    data: Json,
    *,
    ignore_unsupported: bool = False,
    beside: Path | None = None,
    further: Further = filter_problems,
) -> Findings:
    """Return the config in a migrated JSON object, which is used up, or everything that is wrong with it.

    ``beside``: the folder of its file. ``further``: see ``parse_config``.
    """
    elsewhere = [key for key in LISTS if not data.get(key)]
    warnings, errors = _read_lists(data, beside)
    migrate_lists(data)
    said = dict(data)
    if other := other_model(data):
        return Findings(None, [other], warnings, _unsaid(data, said, elsewhere))
    notes, unreadable = _as_meant_elsewhere(data)
    warnings += notes
    errors += unreadable
    mend_sums(data)
    unsaid = _unsaid(data, said, elsewhere)
    drop_nulls(data)
    unsupported = take_unsupported(data, all_unknown=ignore_unsupported)
    warnings += words_of(unsupported, ignore=ignore_unsupported)
    if not ignore_unsupported:
        errors += [item.error() for item in unsupported if item.weight == "changes"]
    for key, value in defaults_of(data).items():
        data.setdefault(key, value)
    try:
        config = TrainConfig.model_validate(data)
    except ValidationError as error:
        errors += explain(error)
        errors = told_together(errors, data) + _problems_beside(data, error, further)
        return Findings(None, errors, warnings, unsaid)
    errors += contradictions(config)
    if errors:
        errors += further(config)
    warnings += notices(config)
    errors = told_together(errors, data)
    return Findings(None if errors else config, errors, warnings, unsaid)


def _as_meant_elsewhere(data: Json) -> tuple[list[str], list[ConfigError]]:
    """Write what a config means in the program that saved it; return what to tell, and what cannot be written here."""
    notes = fill_absent(data) + round_sizes(data) + fork_notices(data)
    notes += read_for_model(data)
    gpus = read_many_gpus(data)
    return notes + gpus.notes, gpus.errors


def _unsaid(data: Json, said: Json, elsewhere: Sequence[str]) -> Json:
    """Return what stands in ``data`` in place of what was ``said``, and the lists from ``elsewhere``."""
    unsaid = {key: data.get(key, []) for key in elsewhere}
    for key, value in data.items():
        if value is not said.get(key):
            unsaid[key] = value
    return deepcopy(unsaid)


def config_json(config: TrainConfig) -> str:
    """Return the whole config as indented JSON."""
    return json.dumps(config.model_dump(), indent=2, ensure_ascii=False) + "\n"


def config_hash(config: TrainConfig) -> str:
    """Return 16 hexadecimal digits that tell configs apart."""
    canonical = json.dumps(config.model_dump(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _problems_beside(
    data: Json, error: ValidationError, further: Further
) -> list[ConfigError]:
    """Return what else is wrong with a config of which some settings are: they are taken out."""
    if error.error_count() > _MOST_LEFT_OUT:
        return []
    wrong = [".".join(map(str, item["loc"])) for item in error.errors()]
    if any(map(names_the_model, wrong)):
        return []
    for path in last_first(wrong):
        drop(data, path)
    try:
        found = further(TrainConfig.model_validate(data))
    except ValidationError:
        return []
    told = list(wrong)
    for path in wrong:
        before, _, last = path.rpartition(".")
        if last.isdecimal():
            # without an entry, those behind it have other numbers
            told.append(before)
    return [problem for problem in found if not _is_in(problem.where, told)]


def names_the_model(path: str) -> bool:
    """Whether what blocks there are hangs on the setting at a path, or on one inside it."""
    return any(_is_in(model, [path]) for model in _NAME_THE_MODEL)


def _is_in(path: str, sections: Iterable[str]) -> bool:
    return any(f"{path}.".startswith(f"{section}.") for section in sections)


def _of_another_program(names: Iterable[str], errors: Sequence[ConfigError]) -> str:
    """Return what to do with a config that is hardly one of ours, empty for one that is."""
    settings = TrainConfig.model_fields
    wrong = {error.where for error in errors}
    unknown = [name for name in names if name in wrong and name not in settings]
    known = [name for name in names if name in settings]
    if len(unknown) < _MANY_UNKNOWN or len(known) >= len(unknown):
        return ""
    return f"Is it the config of another program? Write one for blockrate: {DOCS}."


def _override(data: Json, overrides: Sequence[str]) -> list[ConfigError]:
    """Put settings like ``path=value`` into ``data``; return what is wrong with them."""
    errors = []
    for text in overrides:
        try:
            _put(data, text)
        except ConfigError as error:
            errors.append(error)
    return errors


def _put(data: Json, text: str) -> None:
    path, equals, raw = text.partition("=")
    path = path.strip()
    if not equals or not all(path.split(".")):
        raise ConfigError(f"--set {text}", "is not path=value", _written(text))
    put(data, path, _value(raw), where=f"--set {path}")


def _written(text: str) -> str:
    """Return how a setting is written that was given as ``path: value`` or ``path value``."""
    parts = re.fullmatch(r"\s*([\w.]+)\s*[:\s]\s*(\S.*)", text)
    example = f"{parts[1]}={parts[2]}" if parts else "learning_rate=1e-4"
    return f"Write it like --set {example}."


def _value(raw: str) -> object:
    try:
        return parse_value(raw)
    except (ValueError, RecursionError):
        return raw


def _read_lists(data: Json, beside: Path | None) -> tuple[list[str], list[ConfigError]]:
    """Put concepts and samples that lie in files of their own into ``data``; paths are from the working directory.

    Returns warnings, and what is wrong with those files.
    """
    warnings = []
    errors = []
    for key, file in LISTS.items():
        # OneTrainer writes null where the list lies in a file of its own
        if data.get(key) is None:
            data.pop(key, None)
        name = data.get(file.setting)
        if data.get(key) or not isinstance(name, str) or not name:
            continue
        name = expanduser(name)
        # every saved OneTrainer config names it
        if name == file.default and not Path(name).exists():
            missing = f"there is no {name} here, so there are no {key}"
            if beside and is_there(beside / name):
                missing = f"{missing}. {where_looked_for(name, beside)}"
            warnings.append(f"{file.setting}: {missing}")
            continue
        try:
            data[key] = _read_list(Path(name))
        except ConfigError as error:
            problem = f"{name} {error.problem}"
            cure = error.cure
            if not is_there(Path(name)):
                cure = where_looked_for(name, beside)
            errors.append(ConfigError(file.setting, problem, cure))
    return warnings, errors


def _read_list(path: Path) -> list[Any]:
    entries = read_json(path)
    if not isinstance(entries, list):
        cure = "Use OneTrainer's own file."
        raise ConfigError(str(path), "does not hold a JSON list", cure)
    return entries
