"""One named optimizer group per transformer block, and blocks that are frozen for real."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from torch import nn

from blockrate.core.blocks import OTHER, BlockLayout, block_of, split_block
from blockrate.core.errors import ConfigError
from blockrate.core.profile import FULL, KEY, Profile
from blockrate.engine.partial_layouts import most_blocks


class HasParameters(Protocol):
    """What trains without being a module, like OneTrainer's fused groups: a plain object around one."""

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return what trains in it."""
        ...


Trained = nn.Module | Mapping[str, nn.Module | nn.Parameter | HasParameters]
WHOLE = "transformer"  # the single group of a run whose multipliers are all 1.0

# The lists of double and single blocks: diffusers (FLUX.1, FLUX.2, Chroma), then BFL.
_BLOCK_LISTS = (
    ("transformer_blocks", "single_transformer_blocks"),
    ("double_blocks", "single_blocks"),
)
# By name: importing torch.distributed.fsdp costs time, and some builds of torch lack it.
_DISTRIBUTED = {
    "DistributedDataParallel",
    "FSDPModule",
    "FullyShardedDataParallel",
    "DeepSpeedEngine",
}


class Row(NamedTuple):
    """A parameter, its full name, and the block it lies in, or ``other``."""

    name: str
    parameter: nn.Parameter
    block: str

    @property
    def module(self) -> str:
        """The full name of the module that has the parameter."""
        return self.name.rpartition(".")[0]


def parameter_groups(
    model_or_mapping: Trained, *, learning_rate: float, multipliers: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return optimizer groups ``{"name", "params", "param_names", "lr"}`` in model order, ``other`` last.

    One group per block that has something to train, ``lr = learning_rate * multiplier``; a single group ``transformer``
    when every multiplier is 1.0; a missing one is. Takes a FLUX.1, FLUX.2 or Chroma model of diffusers, plain or with
    PEFT adapters, wrapped or not, a BFL-named model, or a mapping from module name to LoRA module, which may be a plain
    object that has ``named_parameters()`` or ``parameters()``. A mapping or a network of adapters, where nothing lists
    the blocks, may hold some of them only: a multiplier of any block is taken that a known model with such layers has.

    Freezes the blocks with multiplier 0.0 and never un-freezes anything. Raises ``ConfigError`` for a wrong multiplier,
    when nothing is left to train, and where freezing comes too late (see ``freeze_blocks``).
    """
    profile = _profile(model_or_mapping, multipliers)
    return groups_by(model_or_mapping, profile, learning_rate=learning_rate)


def groups_by(
    model_or_mapping: Trained, profile: Profile, *, learning_rate: float
) -> list[dict[str, Any]]:
    """Return ``parameter_groups`` with the rates that a profile begins with, of every block that it ever trains."""
    _freeze(model_or_mapping, profile)
    rows = [
        row
        for row in parameters_by_block(model_or_mapping)
        if row.parameter.requires_grad
    ]
    if not rows:
        cure = "Raise a multiplier above 0.0, or give the model parameters that require gradients."
        raise ConfigError(KEY, "nothing is left to train", cure)
    rates = profile.at(0) if profile.is_used else {WHOLE: FULL}
    # These four keys and no more: a script's checkpoint of its optimizer may have to
    # hold every key that its groups have (torch.distributed.checkpoint, flattened).
    groups: dict[str, dict[str, Any]] = {
        name: {
            "name": name,
            "params": [],
            "param_names": [],
            "lr": learning_rate * rate,
        }
        for name, rate in rates.items()
    }
    for row in rows:
        group = groups[WHOLE if WHOLE in groups else row.block]
        group["params"].append(row.parameter)
        group["param_names"].append(row.name)
    filled = [group for group in groups.values() if group["params"]]
    grouped = [id(parameter) for group in filled for parameter in group["params"]]
    assert sorted(grouped) == sorted({id(row.parameter) for row in rows}), (
        "a parameter is in no group or in two"
    )
    return filled


def freeze_blocks(model: Trained, multipliers: Mapping[str, float]) -> list[str]:
    """Freeze every block (and ``other``) whose multiplier is 0.0 and return their names in model order.

    To be called before DDP or FSDP wraps the model. A wrapped model keeps account of what it synchronises, so freezing
    it then hangs or changes nothing; when such a block still trains there, this raises ``ConfigError``.
    """
    return freeze_by(model, _profile(model, multipliers))


def freeze_by(model: Trained, profile: Profile) -> list[str]:
    """Freeze what a profile never trains, as ``freeze_blocks`` does."""
    _freeze(model, profile)
    return list(profile.never_trained)


def _profile(model: Trained, multipliers: Mapping[str, float]) -> Profile:
    """Return the profile of a model. Only lists of blocks tell how many there are; elsewhere more may exist."""
    layout = block_layout(model)
    most = None if _block_modules(model) else _most_blocks(model)
    if most:
        layout = BlockLayout(
            double=max(layout.double, most.double),
            single=max(layout.single, most.single),
        )
    return Profile.of(multipliers, layout)


def _most_blocks(model: Trained) -> BlockLayout | None:
    """Return how many blocks there may be of which a mapping, or a network of adapters, holds some."""
    shapes = {row.name: row.parameter.shape for row in parameters_by_block(model)}
    return most_blocks(shapes)


def _freeze(model: Trained, profile: Profile) -> None:
    """Freeze every block that never trains; see ``freeze_blocks``."""
    frozen = set(profile.never_trained)
    if not frozen:
        return
    rows = [
        row
        for row in parameters_by_block(model)
        if row.block in frozen and row.parameter.requires_grad
    ]
    wrapper = _distributed_wrapper(model) if rows else None
    if wrapper:
        problem = f"{rows[0].block} has multiplier 0.0 but still trains in a model that {wrapper} has already wrapped"
        raise ConfigError(
            KEY,
            problem,
            "Call blockrate.freeze_blocks(model, multipliers) before wrapping it.",
        )
    for row in rows:
        row.parameter.requires_grad_(False)
        row.parameter.grad = None  # a left-over gradient would still count in clipping


def block_layout(model: Trained) -> BlockLayout:
    """Return how many double and single blocks a model has.

    A mapping may hold a few blocks only. Where the indices of a kind have holes or are missing, the count is that of
    the largest known model whose layers have these names and sizes, or more if an index asks for it.
    """
    modules = _block_modules(model)
    if modules:
        return BlockLayout.of(modules)
    blocks = _blocks_by_name(model)
    if not blocks:
        raise ConfigError(
            "model",
            f"{type(model).__name__} has no transformer blocks",
            "Pass a Flux transformer.",
        )
    indices: dict[str, list[int]] = {"double": [], "single": []}
    for kind, index in map(split_block, blocks):
        indices[kind].append(index)
    most = _most_blocks(model) or BlockLayout(0, 0)
    return BlockLayout(
        double=_count(indices["double"], most.double),
        single=_count(indices["single"], most.single),
    )


def _count(indices: Sequence[int], most: int) -> int:
    """Return how many blocks of a kind there are: as many as there are indices, unless some are missing."""
    if indices and max(indices) == len(indices) - 1:
        return len(indices)
    return max([most, *(index + 1 for index in indices)])


def parameters_by_block(model: Trained) -> list[Row]:
    """Return every parameter once with its full name and its block, or ``other``, in model order.

    The block is where the parameter lies in the running model, whatever wrappers did to its name; only a model without
    block lists, or a mapping, is read by names. A parameter that two blocks share belongs to the first.
    """
    blocks = {id(module): block for block, module in _block_modules(model).items()}
    rows: list[Row] = []
    seen: set[int] = set()

    # One walk for names and blocks: with PEFT a Flux has 7,000 modules, and named_parameters() would be a second one.
    def walk(module: nn.Module, prefix: str, block: str) -> None:
        seen.add(id(module))
        block = blocks.get(id(module), block)
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                full = prefix + name
                own = block if blocks else block_of(full) or OTHER
                rows.append(Row(full, parameter, own))
        for name, child in module._modules.items():
            if child is not None and id(child) not in seen:
                walk(child, f"{prefix}{name}.", block)

    for name, part in _parts(model):
        if isinstance(part, nn.Module):
            walk(part, name, OTHER)
        elif id(part) not in seen:
            seen.add(id(part))
            rows.append(Row(name, part, block_of(name) or OTHER))
    return rows


def _parts(model: Trained) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """Yield the model with the name "", or what a mapping holds: modules, each with a prefix, and parameters."""
    if isinstance(model, nn.Module):
        yield "", model
        return
    for name, value in model.items():
        if isinstance(value, nn.Module):
            yield f"{name}.", value
        else:
            yield from _named_parameters(name, value)


def _named_parameters(
    name: str, value: nn.Parameter | HasParameters
) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of a mapping's value that is no module, each with its full name."""
    if isinstance(value, nn.Parameter):
        yield name, value
    elif hasattr(value, "named_parameters"):
        for inner, parameter in value.named_parameters():
            yield f"{name}.{inner}", parameter
    elif hasattr(value, "parameters"):
        for index, parameter in enumerate(value.parameters()):
            yield f"{name}.{index}", parameter
    else:
        problem = f"{name} is of {type(value).__name__}, which has no parameters"
        cure = (
            "Map names to modules, or to what has parameters() or named_parameters()."
        )
        raise ConfigError("model", problem, cure)


def _block_modules(model: Trained) -> dict[str, nn.Module]:
    """Return the blocks of the first module, under any wrapper, that keeps them in two lists; else nothing."""
    if not isinstance(model, nn.Module):
        return {}
    for module in model.modules():
        for names in _BLOCK_LISTS:
            doubles, singles = (getattr(module, name, None) for name in names)
            if isinstance(doubles, nn.ModuleList) and isinstance(
                singles, nn.ModuleList
            ):
                return _numbered("double", doubles) | _numbered("single", singles)
    return {}


def _numbered(kind: str, blocks: nn.ModuleList) -> dict[str, nn.Module]:
    return {f"{kind}_block_{index}": block for index, block in enumerate(blocks)}


def _blocks_by_name(model: Trained) -> set[str]:
    """Return the blocks that the names of modules tell of."""
    blocks = {block_of(name) for name in _names(model)}
    return {block for block in blocks if block}


def _names(model: Trained) -> Iterable[str]:
    """Yield the names of a model's modules, or of a mapping. Raises ``ConfigError`` for what is neither."""
    if isinstance(model, nn.Module):
        return (name for name, _ in model.named_modules())
    if isinstance(model, Mapping) and all(isinstance(name, str) for name in model):
        return model
    problem = f"{type(model).__name__} is neither a model nor a mapping from names"
    cure = "Pass the transformer, the network, or {name: module} like OneTrainer's lora_modules."
    raise ConfigError("model", problem, cure)


def _distributed_wrapper(model: Trained) -> str | None:
    """Return the class that spreads the model over processes, if one does."""
    tops = [model] if isinstance(model, nn.Module) else model.values()
    classes = {
        kind.__name__
        for top in tops
        # a plain object around a module may show what is inside it
        for module in getattr(top, "modules", tuple)()
        for kind in type(module).__mro__
    }
    return next(iter(sorted(_DISTRIBUTED & classes)), None)
