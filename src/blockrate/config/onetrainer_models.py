"""What settings of OneTrainer mean for the model of a config: some nothing, some what is here by another name."""

from collections.abc import Iterator

from blockrate.config.onetrainer_sections import FACTS
from blockrate.config.paths import find
from blockrate.config.reading import Json
from blockrate.config.train_config import TrainConfig

# forms with sums in eight bits, too, by those with weights in eight bits alone
_HERE = {
    "FLOAT_W8A8": "FLOAT_8",
    "INT_W8A8": "INT_8",
    "FLOAT_W8A8_COMPRESSED": "FLOAT_8",
    "INT_W8A8_COMPRESSED": "INT_8",
}
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
    return [f"only the weights are in eight bits here: {', '.join(told)}"]


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
        if trains or not isinstance(part, dict):
            continue
        form = part.get(_FORM)
        here = _HERE.get(form) if isinstance(form, str) else None
        if here:
            data[name] = {**part, _FORM: here}
            yield f"{name}.{_FORM} {form} is {here}"
