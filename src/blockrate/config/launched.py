"""A config in processes that a launcher has started: their number counts, not what the config says of GPUs."""

from blockrate.config.explain import contradictions
from blockrate.config.many_gpus import platform_refusal
from blockrate.config.told_together import together
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError

_BY_ITSELF = "A launcher has started it for several GPUs; `blockrate train` takes one."


def as_launched(config: TrainConfig, gpus: int) -> TrainConfig:
    """Return a config that asks for the GPUs that a launcher has started it for."""
    numbers = ",".join(map(str, range(gpus)))
    asked = {"multi_gpu": True, "device_indexes": numbers}
    return config.model_copy(update=asked)


def check_launched(config: TrainConfig, gpus: int) -> None:
    """Raise ConfigError for what a launcher's number of GPUs makes impossible, whatever the config says of them."""
    refusal = platform_refusal()
    errors = [refusal] if refusal else []
    errors += contradictions(as_launched(config, gpus))
    if not errors:
        return
    if not config.multi_gpu:
        errors = [_told(error) for error in errors]
    raise together("the config", errors)


def _told(error: ConfigError) -> ConfigError:
    """Return an error that says who asked for several GPUs, for the config has not."""
    return ConfigError(error.where, error.problem, f"{error.cure} {_BY_ITSELF}")
