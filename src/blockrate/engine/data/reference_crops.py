"""Which part of a reference is seen, and how large: that of its image where both have one shape, else all of it."""

from blockrate.core.buckets import Bucket
from blockrate.core.reference_sizes import capped, is_same_shape, whole
from blockrate.dataset.headers import Upright
from blockrate.engine.data.images import Crop


def reference_size(image: Upright, bucket: Bucket, reference: Upright) -> Bucket:
    """Return the size of a reference of an image that is in this bucket."""
    if _is_aligned(image, reference):
        return capped(bucket)
    return whole(reference.width, reference.height, bucket)


def reference_crop(
    image: Upright, bucket: Bucket, crop: Crop, reference: Upright
) -> Crop:
    """Return the part of a reference that belongs to a crop of its image; mirrored as that is."""
    size = reference_size(image, bucket, reference)
    if not _is_aligned(image, reference):
        return middle_crop(reference, size, flip=crop.flip)
    if size == bucket:
        return crop
    across = size.width / bucket.width
    down = size.height / bucket.height
    left = round(crop.box[0] * across)
    top = round(crop.box[1] * down)
    scaled = (
        max(left + size.width, round(crop.scaled[0] * across)),
        max(top + size.height, round(crop.scaled[1] * down)),
    )
    return Crop(scaled, (left, top, left + size.width, top + size.height), crop.flip)


def middle_crop(image: Upright, size: Bucket, *, flip: bool = False) -> Crop:
    """Return the middle of an image that fills a size."""
    scale = max(size.width / image.width, size.height / image.height)
    # rounding may leave a pixel too few
    width = max(size.width, round(image.width * scale))
    height = max(size.height, round(image.height * scale))
    left = (width - size.width) // 2
    top = (height - size.height) // 2
    box = (left, top, left + size.width, top + size.height)
    return Crop((width, height), box, flip)


def _is_aligned(image: Upright, reference: Upright) -> bool:
    return is_same_shape(image.width, image.height, reference.width, reference.height)
