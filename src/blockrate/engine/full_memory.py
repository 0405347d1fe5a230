"""What to do when memory is full: settings that need less, by what was being done."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from blockrate.config.fit import excess
from blockrate.config.plan import Plan
from blockrate.config.room import CACHE_ON_CPU, before_training, smaller_forms
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import OutOfMemoryError, is_full_card, is_full_memory
from blockrate.core.units import share_text, size_text
from blockrate.engine.memory import described
from blockrate.engine.world import world
from blockrate.models.cards import Card
from blockrate.models.families import facts_of_type


def out_of_memory(
    error: BaseException, config: TrainConfig, phase: str
) -> OutOfMemoryError:
    """Return the sentence for a full memory: where, what was tried, and up to three settings that need less."""
    is_card = is_full_card(error)
    used = ""
    if is_card and torch.cuda.is_available():
        used = _used(config.train_device)
    tried = f", at batch_size {config.batch_size} and resolution {config.resolution}"
    if phase == "drawing":
        tried = ""
    memory = "GPU memory" if is_card else "memory"
    cure = f"Set {'; or '.join(remedies_in(phase, config)[:3])}."
    return OutOfMemoryError(memory, f"is full in {phase}{used}{tried}", cure)


def _used(card: str | None) -> str:
    """Return what the run had of the card at most, and what the card has left; other programs use it too."""
    used = f" after {size_text(torch.cuda.max_memory_allocated(card))}"
    reserved = size_text(torch.cuda.max_memory_reserved(card))
    try:
        free, total = torch.cuda.mem_get_info(card)
    except RuntimeError:  # of a card that answers nothing any more
        return f"{used} ({reserved} reserved)"
    return f"{used} ({reserved} reserved, {share_text(free, total)} free)"


def more_than_free(plan: Plan, config: TrainConfig, device: torch.device) -> str:
    """Return that a plan needs more than a card has free, with what needs less; nothing where it has enough."""
    card = _card_of(device)
    too_large = excess(plan, card) if card else ""
    if not too_large:
        return ""
    return f"training {too_large}: set {'; or '.join(in_training(config)[:3])}"


def encoding_more_than_free(config: TrainConfig, device: torch.device) -> list[str]:
    """Return which encoders need more than a card has free, with what needs less; nothing where it has enough."""
    card = _card_of(device)
    return [one.text for one in before_training(config, card)] if card else []


def _card_of(device: torch.device) -> Card | None:
    """Return a card with what is free of it now, nothing for the processor; of several it is called by its process."""
    found = _free_and_total(device)
    if not found:
        return None
    free, total = found
    is_cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_cuda else described(device)
    here = world()
    if here.is_many:
        name = f"GPU {here.rank} ({name})"
    return Card(name, total, free, rate=0.0)


def _free_and_total(device: torch.device) -> tuple[int, int] | None:
    """Return the bytes that a card has free, and all that it has; nothing for the processor."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    if device.type == "mps":
        # of the computer's memory, what Metal lets a program have
        total = torch.mps.recommended_max_memory()
        return total - torch.mps.driver_allocated_memory(), total
    return None


@contextmanager
def named_if_full(phase: str, config: TrainConfig) -> Iterator[None]:
    """Say of a memory that is full inside what was being done. Raises OutOfMemoryError."""
    try:
        yield
    except Exception as error:
        if not is_full_memory(error):
            raise
        raise out_of_memory(error, config, phase) from error


def remedies_in(phase: str, config: TrainConfig) -> list[str]:
    """Return the settings of this config that could need less memory in a phase, the mildest first."""
    return _REMEDIES.get(phase, in_training)(config)


def in_training(config: TrainConfig) -> list[str]:
    """Return at least three settings that could need less memory in training."""
    fine_tune = config.training_method == "FINE_TUNE"
    found = []
    if not config.transformer.gradient_checkpointing:
        found.append("transformer.gradient_checkpointing to true")
    if config.ema == "GPU":
        found.append("ema to CPU")
    found += _smaller_weights(config)
    part = config.transformer
    is_many = world().is_many or config.multi_gpu or config.sharding == "FULL"
    streams = part.gradient_checkpointing and not is_many and not config.compile
    if fine_tune and config.ema != "OFF":
        # an average is taken of weights that lie still
        streams = False
    if streams and part.layer_offload_fraction < 1:
        found.append("transformer.layer_offload_fraction higher")
    if config.batch_size > 1:
        half = config.batch_size // 2
        found.append(f"batch_size to {half} and gradient_accumulation_steps higher")
    if fine_tune and config.optimizer.optimizer == "ADAMW":
        found.append("optimizer.optimizer to ADAMW_8BIT")
    found.append("resolution lower")
    found.append("more of block_learning_rate_multiplier to 0.0, the first blocks best")
    found.append("training_method to LORA" if fine_tune else "lora_rank lower")
    return found


def _in_loading(config: TrainConfig) -> list[str]:
    found = _smaller_weights(config)
    if config.ema == "GPU":
        found.append("ema to CPU")
    if config.training_method == "FINE_TUNE":
        found.append("training_method to LORA")
    return [*found, "other programs aside that use this memory"]


def _in_encoding_captions(config: TrainConfig) -> list[str]:
    parts = {
        "text_encoder_2": config.text_encoder_2,
        "text_encoder": config.text_encoder,
    }
    facts = facts_of_type(config.model_type)
    found = []
    for name, part in parts.items():
        smaller = smaller_forms(part)
        if smaller and name in facts["parts"]:
            found.append(f"{name}.weight_dtype to {smaller[0]}")
    length = facts["caption_tokens"]
    if isinstance(length, str) and getattr(config, length) > 77:
        found.append(f"{length} lower")
    return [*found, CACHE_ON_CPU]


def _in_encoding_images(config: TrainConfig) -> list[str]:
    return [*_smaller_vae(config), "resolution lower", CACHE_ON_CPU]


def _in_sampling(config: TrainConfig) -> list[str]:
    drawn = [number for number, sample in enumerate(config.samples) if sample.enabled]
    found = []
    if drawn:
        largest = max(drawn, key=lambda number: _pixels(config, number))
        found.append(f"samples.{largest}.width and samples.{largest}.height lower")
    return [*found, "sample_after_unit to NEVER", *_smaller_vae(config)]


def _in_drawing(config: TrainConfig) -> list[str]:
    found = ["width and height lower", *_smaller_weights(config)]
    return [*found, *_smaller_vae(config), "other programs aside that use this memory"]


def _pixels(config: TrainConfig, number: int) -> int:
    sample = config.samples[number]
    return sample.width * sample.height


def _smaller_vae(config: TrainConfig) -> list[str]:
    is_largest = config.vae.weight_dtype == "FLOAT_32"
    return ["vae.weight_dtype to BFLOAT_16"] if is_largest else []


def _smaller_weights(config: TrainConfig) -> list[str]:
    """Return the next smaller form of the weights. What trains cannot be in fewer bits than 16."""
    weight_dtype = config.transformer.weight_dtype
    if config.training_method == "FINE_TUNE":
        is_largest = weight_dtype == "FLOAT_32"
        return ["transformer.weight_dtype to BFLOAT_16"] if is_largest else []
    if weight_dtype in ("NFLOAT_4", "GGUF"):
        return []
    if weight_dtype in ("FLOAT_8", "INT_8"):
        return ["transformer.weight_dtype to NFLOAT_4"]
    return ["transformer.weight_dtype to FLOAT_8, or NFLOAT_4 for less"]


def _only(*cures: str) -> Callable[[TrainConfig], list[str]]:
    return lambda config: list(cures)


# by what is done, in words: these stand in messages
_REMEDIES: Mapping[str, Callable[[TrainConfig], list[str]]] = {
    "training": in_training,
    "loading": _in_loading,
    "encoding captions": _in_encoding_captions,
    "encoding images": _in_encoding_images,
    "sampling": _in_sampling,
    "drawing": _in_drawing,
    "validation": _only("validate_after_unit to NEVER", "validation to false"),
    "exporting on the way": _only("save_every_unit to NEVER"),
    # beside the encoders: images are decoded, entries read and written
    "caching": _only("other programs aside that use this memory"),
    "saving": _only("other programs aside that use this memory"),
}
