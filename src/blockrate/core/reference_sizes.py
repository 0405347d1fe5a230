"""How large a reference image is for a transformer: cut like its image where it has its shape, else whole."""

import math

from blockrate.core.buckets import PATCH, Bucket

# As diffusers caps each reference of FLUX.2; Kontext was trained with about as many.
MOST_PIXELS = 1024 * 1024
# Of the ratio of width to height: below it, both show the same part of a scene.
_SAME_SHAPE = 0.02


def is_same_shape(width: int, height: int, other_width: int, other_height: int) -> bool:
    """Whether one image is the other one made larger or smaller, but for the rounding of pixels."""
    ratio = (width * other_height) / (height * other_width)
    rounding = 1 / min(width, height, other_width, other_height)
    return abs(math.log(ratio)) <= _SAME_SHAPE + rounding


def capped(bucket: Bucket) -> Bucket:
    """Return the size of a reference that is cut like an image in this bucket: the same, up to MOST_PIXELS."""
    return fitted(bucket.width, bucket.height, MOST_PIXELS)


def whole(width: int, height: int, bucket: Bucket) -> Bucket:
    """Return the size of a reference of another shape: its own, with no more pixels than its image or MOST_PIXELS."""
    return fitted(width, height, min(bucket.width * bucket.height, MOST_PIXELS))


def fitted(width: int, height: int, most_pixels: int) -> Bucket:
    """Return a size of about this shape, never larger, of at most so many pixels, in whole tokens, one at least."""
    factor = min(1.0, math.sqrt(most_pixels / (width * height)))
    # 64 may come out as 63.999
    across = int(width * factor + 1e-6) // PATCH
    down = int(height * factor + 1e-6) // PATCH
    # of something very long and thin one side is a single token
    most = max(1, most_pixels // PATCH**2)
    across = min(max(1, across), most)
    down = min(max(1, down), most // across)
    return Bucket(across * PATCH, max(1, down) * PATCH)


def most_tokens(image_tokens: int) -> int:
    """Return how many tokens a reference has at most beside an image of so many."""
    return min(image_tokens, MOST_PIXELS // PATCH**2)
