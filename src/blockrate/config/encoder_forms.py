"""The forms of text encoders with which captions can be encoded on a card."""

from collections.abc import Mapping

from blockrate.config.planned_memory import encoding_bytes_of
from blockrate.config.train_config import TrainConfig
from blockrate.models.cards import SLACK, Card
from blockrate.models.encoders import Encoder, encoders_of
from blockrate.models.families import TransformerSpec

# the mildest first; what takes no less than what is set is passed over
_FORMS = ("BFLOAT_16", "FLOAT_8", "INT_8", "NFLOAT_4")


def forms_for(config: TrainConfig, spec: TransformerSpec, card: Card) -> dict[str, str]:
    """Return smaller forms for text encoders that do not fit a card together, by their parts: the largest first.

    None of them where they do fit, and where not even the smallest do.
    """
    encoders = encoders_of(spec)
    own = {part: getattr(config, part).weight_dtype for part in encoders}
    forms = dict(own)
    while encoding_bytes_of(config, spec, forms) * SLACK > card.free:
        smaller = _one_smaller(encoders, forms, config.train_dtype)
        if not smaller:
            break
        forms |= smaller
    # the slack is not always taken
    if encoding_bytes_of(config, spec, forms) > card.free:
        return {}
    return {part: form for part, form in forms.items() if form != own[part]}


def _one_smaller(
    encoders: Mapping[str, Encoder], forms: Mapping[str, str], train_dtype: str
) -> dict[str, str]:
    """Return the largest text encoder that can be smaller, with its next form; nothing where none can."""
    now = {
        part: encoder.weight_bytes(forms[part], train_dtype)
        for part, encoder in encoders.items()
    }
    for part in sorted(now, key=lambda part: -now[part]):
        for form in _FORMS:
            if encoders[part].weight_bytes(form, train_dtype) < now[part]:
                return {part: form}
    return {}
