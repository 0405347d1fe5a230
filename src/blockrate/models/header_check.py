"""What the header of a safetensors file must be: checked in full, in bounded time, before anything believes it.

Source of the rules: huggingface/safetensors, which refuses what breaks them; the limits beside them are ours.
"""

import json
import math
from typing import Any, NamedTuple

# Bytes of a header. Some 1,500 tensors of a Flux take 0.2 MB; tag statistics and a preview picture in the metadata
# some MB. The library's own limit is 100 MB, of which Python makes a gigabyte of objects.
LARGEST_HEADER = 32 * 2**20
# The largest published models of all kinds have some thousand.
MOST_TENSORS = 20_000
_LONGEST_NAME = 256
_MOST_SIDES = 16
_LARGEST_SIDE = 2**53
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8"), 8),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
# what weights of a model may be kept as; integers are those of somebody's quantization
WEIGHT_TYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


class HeaderError(ValueError):
    """What is wrong with a header, in words."""


class Place(NamedTuple):
    """A tensor as the header has it; its bytes lie from ``start`` to ``stop`` behind the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def parse_header(
    text: bytes, weights_size: int, *, whole: bool
) -> tuple[dict[str, str], dict[str, Place]]:
    """Return metadata and tensors of a header. Raises HeaderError.

    ``weights_size``: bytes behind the header. ``whole``: refuse a header without weights, too.
    """
    # before anything is made of them, which takes seconds and a gigabyte where there are too many
    _check_count(text.count(b'"data_offsets"'))
    header = _parsed(text)
    metadata = _metadata(header.pop("__metadata__", None))
    _check_count(len(header))
    tensors = {}
    for name, facts in header.items():
        tensors[name] = _place(_checked_name(name), facts)
    is_header_alone = not weights_size and not any(row.stop for row in tensors.values())
    if whole or not is_header_alone:
        _check_places(tensors, weights_size)
    return metadata, tensors


def _check_count(count: int) -> None:
    if count > MOST_TENSORS:
        raise HeaderError(f"it lists {count:,} tensors; {MOST_TENSORS:,} are the most")


def _parsed(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise HeaderError("it is not a JSON object")
    try:
        header: dict[str, Any] = json.loads(
            text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except HeaderError:
        raise
    except RecursionError as error:
        raise HeaderError("it is nested too deep") from error
    except UnicodeDecodeError as error:
        raise HeaderError("it is not UTF-8 text") from error
    except ValueError as error:
        raise HeaderError("it is not valid JSON") from error
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set()
        for name, _ in pairs:
            if name in seen:
                raise HeaderError(f"it has {_shown(name)} twice")
            seen.add(name)
    return found


def _no_constant(name: str) -> None:
    raise HeaderError(f"it holds {name}")


def _metadata(found: Any) -> dict[str, str]:
    if found is None:
        return {}
    is_text = isinstance(found, dict) and all(
        isinstance(value, str) for value in found.values()
    )
    if not is_text:
        raise HeaderError("its metadata is not text by name")
    return dict(found)


def _checked_name(name: str) -> str:
    if len(name) > _LONGEST_NAME:
        raise HeaderError(f"a tensor's name has {len(name):,} signs: {_shown(name)}")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise HeaderError(f"{_shown(name)} is not Unicode text") from error
    return name


def _place(name: str, facts: Any) -> Place:
    """Return a tensor's facts, which fit together."""
    named = _shown(name)
    needed = {"dtype", "shape", "data_offsets"}
    if not isinstance(facts, dict) or not needed <= facts.keys():
        raise HeaderError(f"{named} does not have dtype, shape and data_offsets")
    dtype = facts["dtype"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise HeaderError(f"{named} is of the unknown type {_shown(dtype)}")
    shape = facts["shape"]
    if not _are_counts(shape) or len(shape) > _MOST_SIDES:
        raise HeaderError(f"{named} has the shape {_shown(shape)}")
    offsets = facts["data_offsets"]
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise HeaderError(f"{named} has the data_offsets {_shown(offsets)}")
    return Place(dtype, tuple(shape), *offsets)


def _are_counts(values: Any) -> bool:
    """Whether something is a list of integers, none negative or beyond any file."""
    if not isinstance(values, list):
        return False
    return all(type(value) is int and 0 <= value <= _LARGEST_SIDE for value in values)


def _check_places(tensors: dict[str, Place], weights_size: int) -> None:
    """See that each tensor has the bytes of its shape, and that together they fill the file without gap or overlap."""
    end = 0
    by_place = sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop))
    for name, (dtype, shape, start, stop) in by_place:
        bits = math.prod(shape) * _BITS[dtype]
        if bits != 8 * (stop - start):
            told = f"{stop - start:,} bytes for {dtype} {list(shape)}"
            raise HeaderError(f"{_shown(name)} has {told}")
        if start != end:
            lies = "overlaps another" if start < end else "lies behind a gap"
            raise HeaderError(f"{_shown(name)} {lies}")
        end = stop
    if end != weights_size:
        raise HeaderError(
            f"{end:,} bytes of weights are listed, {weights_size:,} there"
        )


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
