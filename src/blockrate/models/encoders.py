"""What text encoders and the VAE take of a device while a data set is encoded, before the transformer comes."""

from collections.abc import Mapping
from dataclasses import dataclass

from blockrate.models.families import TransformerSpec
from blockrate.models.savings import CONTEXT_BYTES, FEW_BITS, WEIGHT_BYTES

# of one caption of 512 tokens, counted on the encoders of the published models: Mistral takes 357 MiB in FLOAT_32
CAPTION_BYTES = 384 * 2**20

# counted on the VAEs of FLUX.1 and FLUX.2: what they hold for each pixel of a picture, at most, and their weights
_PIXEL_ELEMENTS = 640
_VAE_PARAMETERS = 84_046_115


@dataclass(frozen=True)
class Encoder:
    """How many parameters a text encoder has.

    ``linears``: in the Linears of its ``blocks``, which few bits are for. ``kept``: of them, that stay as they are
    computed with all the same.
    """

    parameters: int
    linears: int
    blocks: int
    kept: int = 0

    def weight_bytes(self, form: str, train_dtype: str) -> int:
        """Return the bytes of its weights in a form; what is in no few bits is then in ``train_dtype``."""
        if form not in FEW_BITS:
            # transformers has T5's own in fp32 then
            more = 2 * self.kept if form == "FLOAT_16" else 0
            return round(self.parameters * WEIGHT_BYTES[form]) + more
        # see place_t5 in engine/models/flux1.py
        small = self.linears if form == "INT_8" else self.linears - self.kept
        whole = (self.parameters - small) * WEIGHT_BYTES[train_dtype]
        return round(small * WEIGHT_BYTES[form] + whole)

    def coming_bytes(self, form: str, train_dtype: str) -> int:
        """Return what the last of its blocks takes beside them while it is made smaller on the device."""
        if form not in FEW_BITS:
            return 0
        return round(self.linears / self.blocks * WEIGHT_BYTES[train_dtype])


def encoders_of(spec: TransformerSpec) -> dict[str, Encoder]:
    """Return the text encoders of a model by part; none for one whose sizes nobody knows, as of a toy."""
    width = str(spec.hidden)
    counts = spec.facts["encoder_parameters"].get(width, {})
    inside = spec.facts["encoder_linears"].get(width, {})
    return {part: Encoder(count, **inside[part]) for part, count in counts.items()}


def encoding_bytes(
    spec: TransformerSpec,
    forms: Mapping[str, str],
    *,
    train_dtype: str,
    on_card: bool = True,
) -> int:
    """Return the most bytes that a device holds while captions are encoded; 0 where the encoders are not known.

    All text encoders are there together; the VAE has left by then, and the transformer has not come. ``forms``: of
    their weights, by part.
    """
    encoders = encoders_of(spec)
    if not encoders:
        return 0
    weights = 0
    coming = 0
    for part, encoder in encoders.items():
        weights += encoder.weight_bytes(forms[part], train_dtype)
        coming = max(coming, encoder.coming_bytes(forms[part], train_dtype))
    # the last block has come before the first caption does
    beside = max(coming, CAPTION_BYTES)
    return weights + beside + (CONTEXT_BYTES if on_card else 0)


def picture_bytes(form: str, pixels: int, *, on_card: bool = True) -> int:
    """Return the most bytes that a device holds while a picture of so many pixels is encoded, by a published VAE.

    It is alone there, and pictures come one by one. ``form``: of its weights.
    """
    elements = _VAE_PARAMETERS + _PIXEL_ELEMENTS * pixels
    return round(elements * WEIGHT_BYTES[form]) + (CONTEXT_BYTES if on_card else 0)
