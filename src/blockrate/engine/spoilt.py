"""Numbers that went bad, in words: in which part it happened, and what this config can do about it."""

from collections.abc import Sequence

from blockrate.config.base_model import trained_name
from blockrate.config.train_config import TrainConfig
from blockrate.engine.models.sample import Spoilt


def samples_in_words(spoilt: Sequence[Spoilt], config: TrainConfig) -> str:
    """Return which samples were not drawn and why, each cause with its cure; nothing for none."""
    causes = {
        "latents": f"the transformer gives no numbers for them. {_weights_cure(config)}",
        "pixels": f"the VAE gives no numbers for them. {_vae_cure(config)}",
        "one colour": f"every pixel of them is the same. {_vae_cure(config)}",
    }
    texts = []
    for what, cause in causes.items():
        numbers = [one.number for one in spoilt if one.what == what]
        if numbers:
            texts.append(f"{_listed(numbers)}: {cause}")
    return " ".join(texts)


def steps_cure(config: TrainConfig, *, trained: bool) -> str:
    """Return what to do about steps that gave no numbers. ``trained``: whether any before was good."""
    precision = _precision_cures(config)
    if trained:
        first = ["Lower learning_rate", "leave out the named images"]
        cures = [*first, *[f"set {cure}" for cure in precision]]
        return f"{_either(cures)}; saves are untouched."
    weights = trained_name(config)
    cures = [
        f"fetch the weights of {weights} again, which may be damaged",
        "leave out the named images",
        *[f"set {cure}" for cure in precision],
    ]
    return f"Lowering learning_rate does not help, for no weight has changed yet: {_either(cures)}."


def _weights_cure(config: TrainConfig) -> str:
    cures = ["Lower learning_rate and go on from an earlier checkpoint"]
    return (
        f"{_either([*cures, *[f'set {cure}' for cure in _precision_cures(config)]])}."
    )


def _vae_cure(config: TrainConfig) -> str:
    if config.vae.weight_dtype != "FLOAT_32":
        return "Set vae.weight_dtype to FLOAT_32."
    weights = config.vae.model_name or config.base_model_name
    return f"The VAE of {weights} may be damaged: fetch it again, or set vae.model_name to another."


def _precision_cures(config: TrainConfig) -> list[str]:
    """Return the settings of more precision that are not set yet."""
    cures = []
    if config.train_dtype != "FLOAT_32":
        cures.append("train_dtype to FLOAT_32")
    if not config.enable_autocast:
        cures.append("enable_autocast to true")
    if config.transformer.weight_dtype == "FLOAT_16":
        cures.append("transformer.weight_dtype to BFLOAT_16")
    return cures


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(f"samples.{number}" for number in numbers)


def _either(cures: Sequence[str]) -> str:
    *first, last = cures
    return f"{', '.join(first)}, or {last}" if first else last
