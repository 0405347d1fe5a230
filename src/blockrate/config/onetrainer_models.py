"""What settings of OneTrainer mean for the model of a config: some nothing, some what is here by another name."""

from collections.abc import Iterator

from blockrate.config.onetrainer_sections import FACTS
from blockrate.config.paths import find
from blockrate.config.reading import Json
from blockrate.config.train_config import TrainConfig

_EIGHT_BITS = (
    "INT_8",
    "FLOAT_W8A8",
    "INT_W8A8",
    "FLOAT_W8A8_COMPRESSED",
    "INT_W8A8_COMPRESSED",
)
_HERE = "FLOAT_8"
_FORM = "weight_dtype"


def read_for_model(data: Json) -> list[str]:
    """Take out what means nothing for the model of a config, and read its eight-bit forms as ours; return warnings.

    Parts that get something are made anew.
    """
    model = data.get("model_type", TrainConfig.model_fields["model_type"].default)
    facts: Json = FACTS["of_models"].get(model, {}) if isinstance(model, str) else {}
    for path in facts.get("idle", ()):
        _take_out(data, path)
    told = list(_in_eight_bits(data, facts.get("eight_bits", ())))
    if not told:
        return []
    return [f"kept in eight bits here by the name of {_HERE}: {', '.join(told)}"]


def _take_out(data: Json, path: str) -> None:
    if not find(data, path):
        return
    part, _, name = path.rpartition(".")
    if not part:
        del data[name]
        return
    data[part] = {key: value for key, value in data[part].items() if key != name}


def _in_eight_bits(data: Json, parts: list[str]) -> Iterator[str]:
    """Read forms of frozen weights; those that train stay, and are refused."""
    for name in parts:
        part = data.get(name)
        trains = name == "transformer" and data.get("training_method") == "FINE_TUNE"
        if trains or not isinstance(part, dict) or part.get(_FORM) not in _EIGHT_BITS:
            continue
        data[name] = {**part, _FORM: _HERE}
        yield f"{name}.{_FORM} {part[_FORM]}"
