"""Whether a card has room for what comes before training, in words with the settings that need less."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import dropwhile
from typing import NamedTuple

from blockrate.config.base_model import model_spec
from blockrate.config.encoder_forms import forms_for
from blockrate.config.launched import as_launched
from blockrate.config.many_gpus import card_numbers, takes_all
from blockrate.config.parts import TextEncoderPart
from blockrate.config.plan import Plan, make_plan
from blockrate.config.planned_memory import encoding_bytes_of, picture_bytes_of
from blockrate.config.train_config import TrainConfig
from blockrate.core.units import size_text
from blockrate.models.cards import SLACK, Card

# once the cache is full, neither text encoders nor VAE are loaded for it any more
CACHE_ON_CPU = "train_device to cpu with only_cache, for one run that fills the cache"
_FORMS = ("FLOAT_32", "BFLOAT_16", "FLOAT_8", "NFLOAT_4")
# of the size of another one
_AS_LARGE = {"FLOAT_16": "BFLOAT_16", "INT_8": "FLOAT_8"}


def cards_of(config: TrainConfig, cards: Sequence[Card]) -> list[Card]:
    """Return those of these cards that a config trains on; of several each is called by its number, too."""
    found = []
    for number in card_numbers(config, len(cards)):
        if number < len(cards):
            card = cards[number]
            name = f"GPU {number} ({card.name})" if config.multi_gpu else card.name
            found.append(replace(card, name=name))
    return found


def plan_here(config: TrainConfig, plan: Plan, cards: Sequence[Card]) -> Plan:
    """Return the plan of a run on these cards: how many share the weights of one on all, only their machine knows."""
    if not takes_all(config) or not cards:
        return plan
    return make_plan(as_launched(config, len(cards)))


def smaller_forms(part: TextEncoderPart) -> list[str]:
    """Return the forms in which the weights of a text encoder are smaller than they are, the largest first."""
    own = _AS_LARGE.get(part.weight_dtype, part.weight_dtype)
    return [*dropwhile(lambda form: form != own, _FORMS)][1:]


class Excess(NamedTuple):
    """What finds no room: how many bytes it needs, and that in words, with what to set."""

    needed: int
    text: str


def before_training(
    config: TrainConfig, card: Card, *, on_card: bool = True
) -> list[Excess]:
    """Return what of encoding captions and images needs more than a card has free; nothing where all has room.

    ``on_card``: whether that is a card, and not the computer.
    """
    found = []
    if told := encoding_excess(config, card, on_card=on_card):
        found.append(Excess(encoding_needed(config), told))
    needed = _pictures_needed(config)
    if needed > card.free:
        cures = _smaller_vae(config, card)
        if on_card:
            cures.append(CACHE_ON_CPU)
        told = f"{_told('images', needed, card)}: set {'; or '.join(cures)}"
        found.append(Excess(needed, told))
    return found


def _smaller_vae(config: TrainConfig, card: Card) -> list[str]:
    """Return what makes encoding images smaller: the form of the VAE if that is enough, else a lower resolution."""
    form = "BFLOAT_16"
    if _pictures_needed(config, form) <= card.free:
        return [f"vae.weight_dtype to {form}"]
    return ["resolution lower"]


def _pictures_needed(config: TrainConfig, form: str | None = None) -> int:
    return round(picture_bytes_of(config, model_spec(config), form) * SLACK)


def _told(what: str, needed: int, card: Card) -> str:
    return (
        f"encoding {what} that are in no cache yet needs {size_text(needed)}, "
        f"and {card.name} has {size_text(card.free)} free"
    )


def encoding_needed(config: TrainConfig) -> int:
    """Return what encoding captions needs of a card, with what torch's allocator takes beside; 0 if nobody knows."""
    return _needed(config, {})


def encoding_excess(config: TrainConfig, card: Card, *, on_card: bool = True) -> str:
    """Return that encoding captions needs more than a card has free, and what to set; nothing where it does not.

    ``on_card``: whether that is a card, and not the computer.
    """
    needed = encoding_needed(config)
    if needed <= card.free:
        return ""
    problem = _told("captions", needed, card)
    cures = _smaller_encoder(config, card)
    if on_card:
        cures.append(CACHE_ON_CPU)
    return f"{problem}: set {'; or '.join(cures)}" if cures else problem


def _smaller_encoder(config: TrainConfig, card: Card) -> list[str]:
    """Return the forms of text encoders in which all of them find room, if there are any: those that a fit sets."""
    forms = forms_for(config, model_spec(config), card)
    if _needed(config, forms) > card.free:
        return []
    told = [f"{part}.weight_dtype to {form}" for part, form in forms.items()]
    return [" and ".join(told)]


def _needed(config: TrainConfig, forms: Mapping[str, str]) -> int:
    return round(encoding_bytes_of(config, model_spec(config), forms) * SLACK)
