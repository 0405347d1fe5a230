"""The memory that a config's run takes: of a card, of each of several, and of the computer."""

from collections.abc import Mapping
from itertools import chain

from blockrate.config.base_model import caption_tokens
from blockrate.config.filtered import Modules
from blockrate.config.many_gpus import gpus_asked
from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.partners import references_used
from blockrate.config.streamed import fuses_back_pass, streaming_of
from blockrate.config.train_config import TrainConfig
from blockrate.config.weight_form import bytes_of_a_weight
from blockrate.core.buckets import buckets
from blockrate.core.reference_sizes import most_tokens
from blockrate.models.activations import Precision, Work
from blockrate.models.encoders import encoders_of, encoding_bytes, picture_bytes
from blockrate.models.families import TransformerSpec
from blockrate.models.savings import FEW_BITS, Memory, host_bytes, memory
from blockrate.models.sharing import shared_out


def memory_of(config: TrainConfig, spec: TransformerSpec, trained: Modules) -> Memory:
    """Return the memory of a device while these modules train; of several GPUs, of each."""
    dtype = config.trained_dtype()
    row = OPTIMIZERS[config.optimizer.optimizer]
    needed = memory(
        spec,
        trained,
        work_of(config, spec),
        weight_dtype=config.transformer.weight_dtype,
        weight_bytes=bytes_of_a_weight(config),
        trained_dtype=dtype,
        state_bytes=row.state_bytes_for(config.optimizer, dtype),
        precision=_precision(config),
        on_card=_is_on_card(config),
        streams=streaming_of(config, spec, trained),
        one_block_at_a_time=fuses_back_pass(config),
        average=config.ema,
    )
    gpus = gpus_asked(config) or 1
    if config.sharding == "NONE" or gpus == 1:
        return needed
    return shared_out(needed, spec, gpus=gpus, weight_bytes=bytes_of_a_weight(config))


def encoding_bytes_of(
    config: TrainConfig, spec: TransformerSpec, forms: Mapping[str, str] | None = None
) -> int:
    """Return the memory of a device while captions are encoded; 0 where the text encoders are not known.

    ``forms``: of their weights, by part, instead of the config's.
    """
    own = {part: getattr(config, part).weight_dtype for part in encoders_of(spec)}
    return encoding_bytes(
        spec,
        own | dict(forms or {}),
        train_dtype=config.train_dtype,
        on_card=_is_on_card(config),
    )


def picture_bytes_of(
    config: TrainConfig, spec: TransformerSpec, form: str | None = None
) -> int:
    """Return the memory of a device while the largest picture is encoded; 0 for the VAE of a toy.

    ``form``: of the VAE's weights, instead of the config's.
    """
    if not encoders_of(spec):
        return 0
    sizes = chain.from_iterable(buckets(config.resolution))
    return picture_bytes(
        form or config.vae.weight_dtype,
        max(size.width * size.height for size in sizes),
        on_card=_is_on_card(config),
    )


def host_bytes_of(
    config: TrainConfig, spec: TransformerSpec, trained: Modules, needed: Memory
) -> int:
    """Return the main memory of a run, of all its processes.

    ``needed``: of a device, which lies there, too, without a card.
    """
    processes = gpus_asked(config) or 1
    needed_there = host_bytes(
        spec,
        trained,
        loads=_loads(config),
        trained_dtype=config.trained_dtype(),
        rank=config.lora_rank if config.training_method == "LORA" else None,
        average=config.ema,
        sets_aside=config.ema != "OFF" or _is_schedule_free(config),
        streams=streaming_of(config, spec, trained),
        processes=processes,
        shares=config.sharding == "FULL" and processes > 1,
    )
    if _is_on_card(config):
        return needed_there
    return needed_there + processes * max(needed.total, encoding_bytes_of(config, spec))


def _is_schedule_free(config: TrainConfig) -> bool:
    """Whether the weights that train make way for others in samples, see ``TrainingState.evaluation``."""
    return OPTIMIZERS[config.optimizer.optimizer].schedule_free


def _is_on_card(config: TrainConfig) -> bool:
    """Whether it trains on a card; what is left empty can only be told by the engine, and cards are what it wants."""
    return config.train_device != "cpu"


def _loads(config: TrainConfig) -> str:
    """Return the dtype that the transformer is loaded in, before it is made smaller."""
    form = config.transformer.weight_dtype
    return config.train_dtype if form in FEW_BITS else form


def _precision(config: TrainConfig) -> Precision:
    is_fp32 = _loads(config) == "FLOAT_32"
    if is_fp32 and config.train_dtype == "FLOAT_32":
        return "fp32"
    if not (is_fp32 or config.autocasts()) and config.train_dtype == "BFLOAT_16":
        return "bf16"
    return "mixed on fp32" if is_fp32 else "mixed"


def work_of(config: TrainConfig, spec: TransformerSpec) -> Work:
    """Return a micro-batch at the largest resolution of a config."""
    # the square of each resolution
    squares = [sizes[0] for sizes in buckets(config.resolution)]
    tokens = max(square.tokens for square in squares)
    return Work(
        # those of references go the way of the image's
        image_tokens=tokens + references_used(config) * most_tokens(tokens),
        text_tokens=caption_tokens(config, spec),
        batch=config.batch_size,
        rank=config.lora_rank if config.training_method == "LORA" else None,
        checkpointing=config.transformer.gradient_checkpointing,
        joins=_joins(config),
    )


def _joins(config: TrainConfig) -> bool:
    """Whether adapters are computed in few kernels, see engine/adapters/lora.py and stacked.py."""
    return (
        not config.compile
        and config.sharding == "NONE"
        and config.transformer.weight_dtype != "NFLOAT_4"
        and config.dropout_probability == 0
    )
