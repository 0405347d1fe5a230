"""What a config would train, block by block, what it costs, and every refusal that needs neither weights nor images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from blockrate.config.base_model import (
    denied_by_files,
    model_of,
    model_spec,
    model_title,
    refuse_another_type,
    refuse_variant,
    trained_name,
)
from blockrate.config.filtered import (
    Modules,
    allowed_modules,
    blocks_of,
    candidates,
    filter_warnings,
)
from blockrate.config.many_gpus import gpu_warnings, gpus_asked
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.partners import (
    partner_problems,
    partner_warnings,
    references_used,
)
from blockrate.config.planned_cost import other_cost, step_cost
from blockrate.config.planned_memory import (
    encoding_bytes_of,
    host_bytes_of,
    memory_of,
    work_of,
)
from blockrate.config.previews import refuse_previews
from blockrate.config.rate_phases import FROM, PHASES_KEY, start_text
from blockrate.config.streamed import streaming_of, trained_modules
from blockrate.config.told_together import together
from blockrate.config.train_config import TrainConfig
from blockrate.config.weight_form import refuse_another_form
from blockrate.core.blocks import OTHER
from blockrate.core.errors import BlockrateError, ConfigError
from blockrate.core.profile import KEY, Profile, scaled_blocks, sparse
from blockrate.core.selection import selection_text
from blockrate.models.activations import Work
from blockrate.models.families import TransformerSpec, published_of
from blockrate.models.files import is_counted_as_another
from blockrate.models.lora_names import no_name_for
from blockrate.models.module_table import modules
from blockrate.models.savings import Memory
from blockrate.models.streaming import Streaming

Status = Literal["trained", "frozen", "filtered"]
# times the step: weights outside blocks cost next to nothing themselves, more is a longer chain of gradients
WORTH_TELLING = 1.03


@dataclass(frozen=True)
class PlannedGroup:
    """An optimizer group to be, or a block that gets none. ``parameters``: how many train, 0 unless ``trained``."""

    name: str
    blocks: tuple[str, ...]
    parameters: int
    multiplier: float
    learning_rate: float
    status: Status


@dataclass(frozen=True)
class PlannedPhase:
    """Rates that hold from some point of the run on. ``start``: as ``from`` reads. ``step_cost``: as a plan's."""

    start: float
    trained_blocks: tuple[str, ...]
    first_trained_block: str | None
    step_cost: float
    memory_bytes: Memory


@dataclass(frozen=True)
class Plan:
    """What a run would do, at its largest resolution; ``plan --json`` prints these names.

    ``model``: what it is called, with its blocks; ``model_parameters``: of its transformer.
    The layer filter lets ``layers_let_through`` of ``layers`` train, which lie in
    ``blocks_let_through``, ``other`` among them. ``encoding_bytes``: of a device while captions are encoded, before
    the transformer comes; 0 where the text encoders are not known. ``host_bytes``: of main memory.
    ``step_cost``: FLOPs relative to all multipliers at 1.0. ``streaming``: of weights that do not
    lie on the card. ``other_cost``: FLOPs with ``other`` trained relative to those without,
    1.0 where the filter leaves nothing of it.
    ``phases``: of rates that change on the way; ``memory_bytes`` are then of what trains in any of them, all together.
    ``gpus``: how many share a step, null for all there are; ``memory_bytes`` are of each, ``host_bytes`` of all.
    """

    model: str
    model_parameters: int
    model_type: str
    training_method: str
    base_learning_rate: float
    groups: tuple[PlannedGroup, ...]
    layers: int
    layers_let_through: int
    blocks_let_through: tuple[str, ...]
    first_trained_block: str | None
    memory_bytes: Memory
    memory_bytes_all_ones: Memory
    encoding_bytes: int
    host_bytes: int
    gpus: int | None
    step_cost: float
    streaming: Streaming
    other_cost: float
    warnings: tuple[str, ...]
    phases: tuple[PlannedPhase, ...] = ()

    @property
    def peak_bytes(self) -> int:
        """The most that a device holds in the run."""
        return max(self.memory_bytes.total, self.encoding_bytes)

    @property
    def other_trains(self) -> bool:
        """Whether what lies in no block trains."""
        return any(row.name == OTHER and row.status == "trained" for row in self.groups)


def make_plan(config: TrainConfig) -> Plan:
    """Return the plan of a config that was loaded and so holds no contradiction.

    Raises ``ConfigError`` for what cannot train in this model, ``FileError`` for model files.
    """
    spec = model_spec(config)
    work = work_of(config, spec)
    refusals = _refusals(config, spec)
    if refusals:
        raise together("the config", refusals)
    profile = _profile(config, spec)
    allowed = allowed_modules(config, spec)
    trained = trained_modules(config, spec)
    _refuse_what_cannot_train(config, spec, trained)
    needed = memory_of(config, spec, trained)
    return Plan(
        model=model_title(config, spec),
        model_parameters=sum(module.parameters for module in modules(spec)),
        model_type=config.model_type,
        training_method=config.training_method,
        base_learning_rate=config.base_learning_rate(),
        groups=tuple(_groups(config, profile, allowed)),
        layers=len(candidates(config, spec)),
        layers_let_through=len(allowed),
        blocks_let_through=blocks_of(allowed),
        first_trained_block=_first_block(trained),
        memory_bytes=needed,
        memory_bytes_all_ones=memory_of(config, spec, allowed),
        encoding_bytes=encoding_bytes_of(config, spec),
        host_bytes=host_bytes_of(config, spec, trained, needed),
        gpus=gpus_asked(config),
        step_cost=step_cost(spec, trained, allowed, work),
        streaming=streaming_of(config, spec, trained),
        other_cost=other_cost(spec, allowed, profile.ever_trained, work),
        warnings=tuple(_warnings(config, spec, profile, allowed, trained)),
        phases=tuple(_phases(config, spec, allowed, work)),
    )


def _phases(
    config: TrainConfig, spec: TransformerSpec, allowed: Modules, work: Work
) -> Iterator[PlannedPhase]:
    """Yield what each phase costs. The optimizer's state of blocks that stand still stays, see ``Plan``."""
    for phase in config.block_learning_rate_phases:
        own = Profile.of(phase[KEY], spec.layout, spec.architecture).ever_trained
        trained = {
            name: module
            for name, module in allowed.items()
            if (module.block or OTHER) in own
        }
        if not trained:
            problem = f"leave nothing to train {start_text(phase[FROM])}"
            raise ConfigError(PHASES_KEY, problem, "Raise a block there above 0.0.")
        yield PlannedPhase(
            phase[FROM],
            blocks_of(trained),
            _first_block(trained),
            step_cost(spec, trained, allowed, work),
            memory_of(config, spec, trained),
        )


def filter_problems(config: TrainConfig) -> list[ConfigError]:
    """Return what is wrong with the layer filter, by the model; nothing if that is not to be had."""
    try:
        allowed_modules(config, model_spec(config))
    except ConfigError as error:
        return [error]
    except BlockrateError:
        # told by the plan, once the rest is right
        return []
    return []


def _refusals(config: TrainConfig, spec: TransformerSpec) -> list[ConfigError]:
    errors = []
    checks: tuple[Callable[..., object], ...] = (
        refuse_another_type,
        _refuse_foreign_settings,
        refuse_another_form,
        refuse_variant,
        refuse_previews,
        _profile,
        allowed_modules,
    )
    for check in checks:
        try:
            check(config, spec)
        except ConfigError as error:
            errors.append(error)
    return [*errors, *partner_problems(config, spec)]


def _refuse_foreign_settings(config: TrainConfig, spec: TransformerSpec) -> None:
    """Refuse a part or a form of files that the model's architecture does not have."""
    own = config.text_encoder_2.model_name
    if own and "text_encoder_2" not in spec.facts["parts"]:
        problem = f"is {own}, and a {spec.architecture} has no second text encoder"
        raise ConfigError("text_encoder_2.model_name", problem, "Leave it empty.")
    forms = spec.facts["lora_forms"]
    if _is_lora(config) and config.output_model_format not in forms:
        problem = f"{config.output_model_format} is no form for a {spec.architecture}"
        raise ConfigError("output_model_format", problem, f"Use {' or '.join(forms)}.")


def _profile(config: TrainConfig, spec: TransformerSpec) -> Profile:
    return config.profile(spec.layout, spec.architecture)


def _groups(
    config: TrainConfig, profile: Profile, allowed: Modules
) -> Iterator[PlannedGroup]:
    rate = config.base_learning_rate()
    sizes = _sizes_by_block(config, profile, allowed)
    if not profile.is_used:
        blocks = tuple(name for name, size in sizes.items() if size and name != OTHER)
        size = sum(sizes.values())
        yield PlannedGroup("transformer", blocks, size, 1.0, rate, "trained")
        return
    ever_trained = profile.ever_trained
    for name, multiplier in profile.at(0).items():
        blocks = () if name == OTHER else (name,)
        size = sizes[name]
        block_rate = rate * multiplier
        status: Status = "trained"
        if not size:
            status = "filtered"
        elif name not in ever_trained:
            status = "frozen"
        if status != "trained":
            size = 0
            block_rate = 0.0
        yield PlannedGroup(name, blocks, size, multiplier, block_rate, status)


def _sizes_by_block(
    config: TrainConfig, profile: Profile, allowed: Modules
) -> dict[str, int]:
    """Return how many parameters of each block, and of ``other``, could train."""
    sizes = dict.fromkeys(profile.at(0), 0)
    for module in allowed.values():
        size = module.parameters
        if _is_lora(config):
            size = module.adapter_parameters(config.lora_rank)
        sizes[module.block or OTHER] += size
    return sizes


def _refuse_what_cannot_train(
    config: TrainConfig, spec: TransformerSpec, trained: Modules
) -> None:
    if not trained:
        problem = "is 0.0 for everything that the layer filter lets train, so nothing would train"
        raise ConfigError(KEY, problem, "Raise at least one of these blocks above 0.0.")
    form = config.output_model_format
    outside = {
        name: reason
        for name in trained
        if (reason := no_name_for(spec.architecture, form, name))
    }
    if outside:
        name, reason = next(iter(outside.items()))
        others = f" and {len(outside) - 1} others" if len(outside) > 1 else ""
        problem = f"{reason}, but {name}{others} would train"
        cure = f"Use DIFFUSERS_LORA, or layer_filter_preset blocks, or set other to 0.0 in {KEY}."
        raise ConfigError("output_model_format", problem, cure)


def _warnings(
    config: TrainConfig,
    spec: TransformerSpec,
    profile: Profile,
    allowed: Modules,
    trained: Modules,
) -> Iterator[str]:
    yield from _model_warnings(config, spec)
    yield from filter_warnings(config, spec)
    yield from _rate_warnings(config, spec, profile, allowed)
    yield from _cost_warnings(config, spec, profile, trained)
    yield from gpu_warnings(config)


def _model_warnings(config: TrainConfig, spec: TransformerSpec) -> Iterator[str]:
    name = trained_name(config)
    if is_counted_as_another(name):
        like = published_of(spec, config.model_type, name).title
        yield f"base_model_name: nobody here knows {name}, so it is counted as {like} until its files are here."
    model = model_of(config, spec)
    if model and model.warns and not references_used(config):
        yield f"base_model_name: this is {model.title}, and {model.warns}."
    denied = denied_by_files(config, spec)
    if denied:
        yield f"model_variant {config.model_variant} counts, though the model's own files say {denied}."
    if config.model_variant and not model:
        yield "model_variant has no effect: of this model there is only one."
    yield from partner_warnings(config, spec)


def _rate_warnings(
    config: TrainConfig,
    spec: TransformerSpec,
    profile: Profile,
    allowed: Modules,
) -> Iterator[str]:
    phases = [profile.at(step) for step in (0, *profile.changes())]
    reached = {module.block or OTHER for module in allowed.values()}
    idle = [
        name
        for multipliers in phases
        for name, rate in sparse(multipliers).items()
        # what other would do if the filter let it through may be said beforehand
        if name not in reached and not (name == OTHER and rate == 0.0)
    ]
    if idle:
        blocks = selection_text(idle, spec.layout)
        yield f"The layer filter leaves nothing to train in {blocks}: no rate counts there."
    left_out = {
        module.block or OTHER
        for module in candidates(config, spec)
        if module.name not in allowed
    }
    scaled = chain.from_iterable(map(scaled_blocks, phases))
    partly = [name for name in scaled if name in reached and name in left_out]
    if partly:
        blocks = selection_text(partly, spec.layout)
        yield f"The layer filter trains only a part of {blocks}: rates count for that."


def _cost_warnings(
    config: TrainConfig,
    spec: TransformerSpec,
    profile: Profile,
    trained: Modules,
) -> Iterator[str]:
    ratio = other_cost(spec, trained, profile.ever_trained, work_of(config, spec))
    if profile.is_used and OTHER in blocks_of(trained) and ratio > WORTH_TELLING:
        text = f"Training other sends gradients through the frozen early blocks: {ratio:.2f} times the step"
        if spec.facts["shared_modulation"]:
            text += ", and it modulates every block, so that frozen ones answer differently, too"
        yield f"{text}."
    parameters = OPTIMIZERS[config.optimizer.optimizer].values(config.optimizer)
    rounds_by_chance = parameters.get("stochastic_rounding")
    if config.trained_dtype() == "BFLOAT_16" and not rounds_by_chance:
        field = "lora_weight_dtype" if _is_lora(config) else "weight_dtype"
        yield f"bf16 weights lose small changes: use ADAMW with stochastic_rounding, or {field} FLOAT_32."


def _first_block(trained: Modules) -> str | None:
    """Return the block of the first module that trains and lies in one."""
    for module in trained.values():
        if module.block:
            return module.block
    return None


def _is_lora(config: TrainConfig) -> bool:
    return config.training_method == "LORA"
