"""The form that a transformer's weights lie in: what a weight takes, and whether its file has that form."""

from functools import lru_cache
from pathlib import Path

from blockrate.config.base_model import trained_name
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.models.families import TransformerSpec
from blockrate.models.gguf_header import is_gguf, mean_bytes, read_gguf
from blockrate.models.savings import WEIGHT_BYTES

_GGUF = "GGUF"


def bytes_of_a_weight(config: TrainConfig) -> float:
    """Return the bytes of a weight of a block; in a GGUF file, which has several forms, their mean."""
    form = config.transformer.weight_dtype
    if form != _GGUF:
        return WEIGHT_BYTES[form]
    file = Path(trained_name(config))
    state = file.stat()
    return _mean_bytes(file, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _mean_bytes(file: Path, size: int, changed: int) -> float:
    return mean_bytes(read_gguf(file), "_blocks.")


def refuse_another_form(config: TrainConfig, spec: TransformerSpec) -> None:
    """Raise ConfigError for a GGUF file whose weights shall be in another form, and for another file as GGUF."""
    name = trained_name(config)
    form = config.transformer.weight_dtype
    field = "transformer.weight_dtype"
    is_one = is_gguf(Path(name))
    if is_one and form != _GGUF:
        problem = f"is {form}, and {name} is a GGUF file, whose weights stay as they are packed"
        raise ConfigError(field, problem, f"Set it to {_GGUF}.")
    if form == _GGUF and not is_one:
        problem = f"is {_GGUF}, and {name} is no .gguf file"
        cure = "Set it to BFLOAT_16, INT_8, FLOAT_8 or NFLOAT_4, or name a .gguf file."
        raise ConfigError(field, problem, cure)
