"""What is shown of text that files bring along."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrate.core.errors import ConfigError, FileError
from blockrate.core.plain_text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\x7f\x00\x08", r"a\x7f\x00\x08"),
        ("one\r\ntwo\tthree", r"one\r\ntwo\tthree"),
        ("safe\u202egnp.exe", r"safe\u202egnp.exe"),
        ("\u2066a\u2069 \u2028 \u2029 \x85", r"\u2066a\u2069 \u2028 \u2029 \x85"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_control_signs_are_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "Größe ü",
        "日本語 한국어",
        "العربية עברית",
        "👩‍👩‍👧 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        r"C:\new\x1b",
        "a\u00a0b\u00adc",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert visible(text) == text


@given(st.text())
def test_no_text_keeps_a_control_sign(text: str) -> None:
    shown = visible(text)
    kinds = {unicodedata.category(sign) for sign in shown}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    assert visible(shown) == shown


def test_which_line_breaks_stay() -> None:
    text = "first\n  part\nforged\n\x1b[A"
    assert visible(text, lines="none") == r"first\n  part\nforged\n\x1b[A"
    assert visible(text, lines="indented") == "first\n  part" r"\nforged\n\x1b[A"
    assert visible(text, lines="all") == "first\n  part\nforged\n" r"\x1b[A"


def test_an_error_shows_what_it_names_on_one_line() -> None:
    parts = [FileError("b\x1b[2J.png", "is cut off")]
    error = ConfigError("a\n  error: all is well", "is \u202eno folder", parts=parts)
    assert str(error) == (
        r"a\n  error: all is well: is \u202eno folder."
        "\n"
        r"  b\x1b[2J.png: is cut off."
    )
