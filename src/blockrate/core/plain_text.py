"""Text from files and folders, made safe to show: a terminal obeys control signs wherever they stand.

An escape sequence in a file's name can clear the screen, set its title or write lines that look like ours; a
bidirectional override turns the reading order of what follows. Ordinary text of any language stays as it is.
"""

import re
from typing import Literal

# C0 and C1 controls and DEL; line and paragraph separator; embeddings, overrides and isolates of the
# bidirectional algorithm (Unicode Standard Annex 9); halves of surrogate pairs, which are no characters.
_UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_NAMED = {"\t": "\\t", "\r": "\\r", "\n": "\\n"}
# Lists in our own messages are indented; what a file brings may not begin at the margin.
_BREAKS = {
    "none": re.compile("\n"),
    "indented": re.compile("\n(?!  )"),
    "all": re.compile("(?!)"),
}

Lines = Literal["none", "indented", "all"]


def visible(text: str, *, lines: Lines = "none") -> str:
    r"""Return ``text`` with each control sign written out, ``\x1b``.

    ``lines``: which line breaks stay; ``none`` for a name or value, ``indented`` for a message whose further lines
    begin with two spaces, ``all`` for what is ours or goes to a log.
    """
    return _BREAKS[lines].sub(_written_out, _UNSAFE.sub(_written_out, text))


def _written_out(found: re.Match[str]) -> str:
    sign = found[0]
    code = ord(sign)
    form = f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    return _NAMED.get(sign, form)
