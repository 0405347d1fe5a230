"""Several GPUs for one run: which a config asks for, and what it asks that several cannot do."""

import math
import sys
from collections.abc import Iterator, Sequence

from blockrate.config.optimizers import OPTIMIZERS
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.models.cards import card_number
from blockrate.models.savings import FEW_BITS

# what torch calls a card without saying which
_ANY_CARD = (None, "cuda", "cpu")
_NOT_SHARED = {
    "NFLOAT_4": "4-bit weights have scales beside them that cannot be shared out",
    "FLOAT_8": "float8 weights that are shared out all come together in a step and stay, so no memory is saved",
    "GGUF": "weights of a GGUF file have scales between them that cannot be shared out",
    "INT_8": "8-bit weights have scales beside them that cannot be shared out",
}


def gpu_numbers(config: TrainConfig) -> tuple[str, ...]:
    """Return the numbers of the GPUs that a config names; none where it takes one, or all there are."""
    if not config.multi_gpu or not config.device_indexes:
        return ()
    return tuple(config.device_indexes.split(","))


def takes_all(config: TrainConfig) -> bool:
    """Whether a config takes all GPUs of a machine, of which only that machine knows the number."""
    return config.multi_gpu and not config.device_indexes


def card_numbers(config: TrainConfig, here: int) -> Sequence[int]:
    """Return the numbers of the cards that a config trains on, of so many; those that it names may be beyond them."""
    if takes_all(config):
        return range(here)
    if config.multi_gpu:
        return [int(number) for number in gpu_numbers(config)]
    number = card_number(config.train_device)
    return [] if number is None else [number]


def gpus_asked(config: TrainConfig) -> int | None:
    """Return how many GPUs a config asks for, None for all of a machine."""
    return None if takes_all(config) else max(1, len(gpu_numbers(config)))


def for_gpus(count: int) -> list[str]:
    """Return the settings, as for ``--set``, of a run on so many GPUs of a machine, from its first on."""
    if count == 1:
        return ["multi_gpu=false"]
    numbers = ",".join(map(str, range(count)))
    return ["multi_gpu=true", f'device_indexes="{numbers}"']


def images_of_a_step(config: TrainConfig) -> int:
    """Return how many images one change of the weights is learned from, on however many GPUs."""
    return config.batch_size * config.gradient_accumulation_steps


def refusals(config: TrainConfig) -> Iterator[ConfigError]:
    """Yield what a config asks of several GPUs that cannot be, as far as can be told without them."""
    if config.multi_gpu and config.train_device not in _ANY_CARD:
        problem = f"{config.train_device} is one device, and multi_gpu takes several"
        cure = "Leave it empty, and name the GPUs in device_indexes, as 0,1."
        yield ConfigError("train_device", problem, cure)
    if config.sharding == "FULL":
        yield from _of_sharding(config)
    idle = idle_refusal(config, len(gpu_numbers(config)))
    if idle:
        yield idle


def _of_sharding(config: TrainConfig) -> Iterator[ConfigError]:
    row = OPTIMIZERS[config.optimizer.optimizer]
    if row.why_not_sharded:
        names = [name for name, row in OPTIMIZERS.items() if not row.why_not_sharded]
        problem = f"{row.title} cannot train weights that are shared over GPUs: {row.why_not_sharded}"
        cure = f"Use {', '.join(names[:-1])} or {names[-1]}, or set sharding to NONE."
        yield ConfigError("optimizer.optimizer", problem, cure)
    form = config.transformer.weight_dtype
    if form in FEW_BITS:
        cure = (
            "Use BFLOAT_16, of which each GPU keeps its share, or set sharding to NONE."
        )
        yield ConfigError("transformer.weight_dtype", _NOT_SHARED[form], cure)


def idle_refusal(config: TrainConfig, gpus: int) -> ConfigError | None:
    """Return the refusal of more GPUs than a step has images for, if they are more."""
    images = images_of_a_step(config)
    if gpus <= images:
        return None
    each = math.ceil(gpus / config.batch_size)
    told = "1 image" if images == 1 else f"{images} images"
    problem = (
        f"{gpus} GPUs, and a step has {told}: some would never have anything to do"
    )
    fewer = "on one GPU" if images == 1 else f"on {images} GPUs"
    cure = (
        f"Set it to {each}, by which a step learns from more images, or train {fewer}."
    )
    return ConfigError("gradient_accumulation_steps", problem, cure)


def idle_warning(config: TrainConfig, gpus: int) -> str:
    """Say when some GPUs wait for others in every step, ``""`` if they do not."""
    images = images_of_a_step(config)
    left = images % gpus
    if gpus == 1 or left == 0:
        return ""
    rounds = math.ceil(images / gpus)
    return (
        f"{gpus} GPUs share {images} images a step: {gpus - left} of them have one less to do than the others, "
        f"and wait. A multiple of {gpus}, as {rounds * gpus}, keeps all at work."
    )


def gpu_warnings(config: TrainConfig) -> Iterator[str]:
    """Yield what is to be said of the GPUs that a config names."""
    waiting = idle_warning(config, gpus_asked(config) or 1)
    if waiting:
        yield waiting


def unused_sharding(config: TrainConfig) -> Iterator[str]:
    """Yield what is to be said of sharding that nothing is shared by."""
    if config.sharding == "FULL" and not config.multi_gpu:
        yield "sharding FULL shares nothing on one GPU: set multi_gpu, or start it by a launcher like torchrun"


def platform_refusal(platform: str = sys.platform) -> ConfigError | None:
    """Return why several GPUs cannot train on this system, nothing if they can. ``platform``: as Python calls it."""
    if platform == "darwin":
        problem = "a Mac has one GPU for torch"
    elif platform == "win32":
        problem = "on Windows GPUs cannot add up gradients with each other, for torch has no NCCL there"
    else:
        return None
    cure = "Set it to false"
    if platform == "win32":
        cure += ", or train in WSL 2"
    return ConfigError("multi_gpu", problem, f"{cure}.")
