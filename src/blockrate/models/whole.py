"""Whether the files of a model hold what it is made of: nothing missing, nothing left over. Reads headers alone."""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from blockrate.core.blocks import shortened
from blockrate.core.errors import FileError
from blockrate.models.bfl_tensors import bfl_tensors
from blockrate.models.families import ARCHITECTURES, TransformerSpec
from blockrate.models.gguf_header import PACKED, read_weights_header
from blockrate.models.header_check import WEIGHT_TYPES
from blockrate.models.headers import Tensors, read_header, refuse_scaled
from blockrate.models.module_table import modules
from blockrate.models.part_files import (
    UNCHANGED,
    WEIGHTS,
    checked_config,
    config_file,
    index_file,
    own_config,
    read_config,
    shards_of,
    weight_files,
)
from blockrate.models.single_file import (
    beside_transformer,
    has_bfl_names,
    transformer_names,
)

_TEMPLATE = "chat_template.jinja"  # transformers' name
_TOLD = 3  # names in one sentence
_COPY_AGAIN = "Download or copy the model again, as a whole."
_OTHER_PART = "Name the part that belongs to this transformer."
Shapes = dict[str, tuple[int, ...]]


def tensors_of(part: str, path: Path) -> Tensors:
    """Return dtype and shape of every tensor of a part, by the name in its files.

    Raises FileError for damaged files, scaled 8-bit weights, a tensor that two shards hold, and
    an index that does not say what the shards hold.
    """
    tensors: Tensors = {}
    places: dict[str, str] = {}
    for file in weight_files(part, path):
        # of parts in a folder none is a GGUF file
        read = read_weights_header if path.is_file() else read_header
        found = read(file, whole=True)[1]
        # of a checkpoint its transformer alone is used, whatever its text encoders are
        used = transformer_names(found).values() if path.is_file() else found
        refuse_scaled(file, used)
        refuse_names(
            file, "holds tensors that another shard holds too", tensors.keys() & found
        )
        tensors |= found
        places |= dict.fromkeys(found, file.name)
    index = index_file(part, path)
    if index:
        listed = shards_of(index)
        names = set(places)
        # transformers' may list the other name of tied weights, and tells itself what lacks
        if not part.startswith("text_encoder"):
            names |= listed.keys()
        wrong = [name for name in names if places.get(name) != listed.get(name)]
        refuse_names(index, "does not say what the shards hold", wrong)
    return tensors


def check_parts(paths: Mapping[str, Path], spec: TransformerSpec) -> None:
    """Refuse parts that are damaged, of another model, or too wide or narrow for the transformer."""
    for part, path in paths.items():
        if part in WEIGHTS and path.is_dir():
            config = checked_config(part, path)
            tensors = tensors_of(part, path)
            _check_fit(part, path, config, spec)
            _refuse_no_weights(part, path, tensors, spec)
    if spec.facts.get("has_template"):
        _check_template(paths["tokenizer"])


def known_beside(architecture: str, part: str, name: str) -> bool:
    """Whether files of this part may hold a tensor that the part does not have: the other half of CLIP, for one."""
    kind = ARCHITECTURES[architecture]["kinds"][part]
    return bool(re.search(kind["beside"], name))


def _check_fit(
    part: str, folder: Path, config: Mapping[str, Any], spec: TransformerSpec
) -> None:
    """Refuse a part that is of another kind than the architecture's, or whose width is not the transformer's."""
    kind = spec.facts["kinds"].get(part)
    if not kind:
        return
    where = str(config_file(part, folder))
    needed = kind["is"]
    if "told_by" in kind:
        # of two kinds the second where the model has this
        needed = [needed[int(getattr(spec, kind["told_by"]))]]
    stated = config.get(kind["says"], needed[0])
    if stated not in needed:
        problem = f"describes {shortened(str(stated))}, and {needed[0]} is needed"
        raise FileError(where, problem, _OTHER_PART)
    fed = getattr(spec, kind["feeds"])
    width = own_config(config).get(kind["width"])
    if not isinstance(width, int) or width * kind["times"] != fed:
        told = shortened(repr(width))
        problem = f"{kind['width']} is {told}, and the transformer takes {fed // kind['times']}"
        raise FileError(where, problem, _OTHER_PART)
    for name in kind["numbers"]:
        _check_factor(where, name, config.get(name))


def _check_template(folder: Path) -> None:
    """Refuse a tokenizer that does not know how its language model was taught to be asked."""
    stated = read_config(config_file("tokenizer", folder))
    if not stated.get("chat_template") and not (folder / _TEMPLATE).is_file():
        cure = f"Copy {_TEMPLATE} of the same model beside its tokenizer.json."
        raise FileError(str(folder), "has no chat template", cure)


def _check_factor(where: str, name: str, value: object) -> None:
    """Refuse what latents cannot be computed with: no number at all, or a factor that leaves nothing of them."""
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = value
    is_nothing = name == "scaling_factor" and not number
    if is_nothing or not math.isfinite(number):
        told = shortened(repr(value))
        problem = f"{name} is {told}, which latents cannot be computed with"
        raise FileError(where, problem, UNCHANGED)


def _refuse_no_weights(
    part: str, path: Path, tensors: Tensors, spec: TransformerSpec
) -> None:
    """Refuse tensors of integers and the like, which a library would take for weights as they stand."""
    wrong = []
    for name, facts in tensors.items():
        is_beside = part != "transformer" and known_beside(
            spec.architecture, part, name
        )
        if facts.dtype not in (*WEIGHT_TYPES, *PACKED) and not is_beside:
            wrong.append(f"{facts.dtype} {name}")
    problem = "holds tensors that are no weights as they stand"
    refuse_names(path, problem, wrong, "Use the original weights, in bf16.")


def check_transformer(path: Path, spec: TransformerSpec) -> list[str]:
    """Compare a transformer's folder or file with the model of its sizes, and return what to tell.

    Raises FileError with the names of tensors that are missing, left over or of another shape.
    """
    every = tensors_of("transformer", path)
    if path.is_dir():  # diffusers reads a folder by its own names alone
        tensors, of_bfl = every, False
    else:
        names = transformer_names(every)
        tensors = {own: every[name] for own, name in names.items()}
        of_bfl = has_bfl_names(tensors)
    expected = dict(_bfl_shapes(spec) if of_bfl else _shapes(spec))
    missing = [name for name in expected if name not in tensors]
    unknown = [name for name in tensors if name not in expected]
    refuse_wrong_names(path, missing, unknown)
    wrong = [name for name, shape in expected.items() if tensors[name].shape != shape]
    if wrong:
        name = wrong[0]
        problem = f"has tensors of another shape than its sizes ask for: {name} {list(tensors[name].shape)}"
        problem += f", not {list(expected[name])}"
        raise FileError(str(path), _counted(problem, len(wrong) - 1), _COPY_AGAIN)
    _refuse_no_weights("transformer", path, tensors, spec)
    return [] if path.is_dir() else beside_transformer(path, every)


def refuse_wrong_names(
    where: Path, missing: Sequence[str], unknown: Sequence[str]
) -> None:
    """Raise FileError for tensors that are missing from a part or left over in it, all in one sentence."""
    problems = []
    if missing:
        tensors = "tensor" if len(missing) == 1 else "tensors"
        problems.append(f"lacks {len(missing):,} {tensors} ({_in_words(missing)})")
    if unknown:
        are = "is" if len(unknown) == 1 else "are"
        told = f"{len(unknown):,} that {are} not of this model"
        problems.append(f"has {told} ({_in_words(unknown)})")
    if problems:
        raise FileError(str(where), " and ".join(problems), _COPY_AGAIN)


def refuse_names(
    where: Path, problem: str, names: Collection[str], cure: str = _COPY_AGAIN
) -> None:
    """Raise FileError if there are names that a problem is with."""
    if names:
        told = f"{problem}: {len(names):,} ({_in_words(sorted(names))})"
        raise FileError(str(where), told, cure)


def _in_words(names: Sequence[str]) -> str:
    """Return the first names and how many more there are."""
    told = ", ".join(shortened(name) for name in names[:_TOLD])
    return _counted(told, len(names) - _TOLD)


def _counted(text: str, more: int) -> str:
    return f"{text} and {more:,} more" if more > 0 else text


def _shapes(spec: TransformerSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield every tensor by diffusers' name, with its shape."""
    for module in modules(spec):
        yield f"{module.name}.weight", module.shape
        if module.bias:
            yield f"{module.name}.bias", module.shape[:1]


def _bfl_shapes(spec: TransformerSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield every tensor by BFL's name, with its shape: the rows of fused modules stacked."""
    for name, row in bfl_tensors(spec).items():
        yield name, row.shape
