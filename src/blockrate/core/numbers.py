"""What number a text means that is none in JSON: ``0,5``, ``50%``, ``1e-4f``."""

import math
import re

# a longer text is no number that a hand wrote
_LONGEST = 40
_DIGITS = r"[+-]?(?:\d[\d_]*(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d{1,3})?"
# a percent sign, or what other languages put behind a number
_NUMBER = re.compile(rf"({_DIGITS})\s*(%|[fFdDlL]|)")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:[ ,]\d{3})+")


def number_meant(text: str, *, whole: bool = False) -> float | int | None:
    """Return the number that a text means, ``None`` where it means none.

    ``whole``: a whole number is wanted, so that the comma of ``1,000`` parts thousands.
    """
    plain = text.strip().replace("−", "-")  # noqa: RUF001 (a typographic minus)
    if len(plain) > _LONGEST:
        return None
    if whole and _THOUSANDS.fullmatch(plain):
        plain = re.sub("[ ,]", "", plain)
    parts = _NUMBER.fullmatch(plain)
    if not parts:
        return None
    number = float(parts[1].replace(",", ".").replace("_", ""))
    if parts[2] == "%":
        number /= 100
    if not math.isfinite(number):
        return None
    if whole or not re.search("[.,eE%]", plain):
        return int(number) if number.is_integer() else None
    return number
