"""What is wrong with a text that should be JSON, in the words of somebody who has seen it before."""

import json
import re
from typing import NamedTuple

from blockrate.core.numbers import number_meant

DOCS = (
    "docs/first_lora.md shows one, docs/config.md names every setting, "
    "docs/from_kohya.md says what the options of sd-scripts are called here"
)
_EXAMPLE = '{"learning_rate": 1e-4, "concepts": [{"path": "photos"}]}'
_JSON_CURE = f"Write the settings that differ from the defaults as JSON: {DOCS}."
_COMMENTS = re.compile(r"(?:\s+|//[^\n]*|#[^\n]*|/\*.*?\*/)+", re.DOTALL)
# what is wrong is told by what stands around it, and a form by how a text begins
_LOOKED_AT = 500
_CUT_OFF = "the file ends in the middle, as if it were cut off"
_WHOLE = "Copy or save it again, or close its brackets."
_WORD = re.compile(r"[^\W\d][\w.-]*")
_QUOTES = "'`‘’‚‛“”„«»"  # noqa: RUF001 (signs that people paste)
_FLAGS = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_NOTHINGS = ("none", "nil", "undefined", "nan")


class Finding(NamedTuple):
    """What is wrong with a file, and what to do."""

    problem: str
    cure: str


# How a text begins that is of another form; the first that fits counts.
_TEXT_FORMS = (
    (r"<", "is a web page or XML", "Download the file itself."),
    (r"#!|(?:accelerate|python|export)\s", "is a script of commands", _JSON_CURE),
    (
        r"\[\[?[A-Za-z][\w. -]*\]\]?\s*(?:#[^\n]*)?(?:\n|$)|[A-Za-z][\w.-]*\s*=",
        "is TOML, as sd-scripts reads it, and a config here is JSON",
        _JSON_CURE,
    ),
    (
        r"---|%YAML|-\s+\S|[\"']?[A-Za-z][\w. -]*[\"']?\s*:(?:\s|$)",
        "is YAML, as ai-toolkit reads it, and a config here is JSON",
        _JSON_CURE,
    ),
)
# How a file begins that is no text at all.
_BINARY_FORMS = (
    (
        rb".{7}\x00\{",
        "is a safetensors file: a LoRA or a model",
        "`blockrate inspect` shows what a LoRA changes; a config is a JSON file.",
    ),
    (rb"GGUF", "is a GGUF model", "A config is a JSON file."),
    (rb"PK", "is a zip archive", "Unpack it, and give the JSON file in it."),
    (rb"\x1f\x8b", "is a gzip archive", "Unpack it, and give the JSON file in it."),
    (
        rb"\x89PNG|\xff\xd8\xff|GIF8|BM|RIFF....WEBP|....ftyp",
        "is an image or a film",
        "A config is a JSON file, which names the folder of images: concepts.0.path.",
    ),
    (rb"%PDF", "is a PDF", "A config is a JSON file."),
    (rb"\x80[\x02-\x05]", "is a pickle", "A config is a JSON file."),
)


def binary_form(content: bytes) -> Finding | None:
    """Return what a file is that holds no text, as far as its first bytes tell."""
    for pattern, problem, cure in _BINARY_FORMS:
        if re.match(pattern, content, re.DOTALL):
            return Finding(problem, cure)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return Finding("is not UTF-8 text but UTF-16", "Save it as UTF-8.")
    return None


def why_not_json(text: str, error: json.JSONDecodeError) -> Finding:
    """Return what a text is that is no JSON, or where it stops being JSON, and why."""
    if not text.strip("\0 \t\r\n\ufeff"):
        return Finding("is empty", f"Write {_EXAMPLE}, or name a preset.")
    comments = _COMMENTS.match(text)
    start = comments.end() if comments else 0
    begins = text[:_LOOKED_AT], text[start : start + _LOOKED_AT]
    for pattern, problem, cure in _TEXT_FORMS:
        # a script is told by what looks like a comment
        if any(re.match(pattern, begin) for begin in begins):
            return Finding(problem, cure)
    if text[start : start + 1] in ("{", "["):
        return _in_json(text, error)
    return Finding(
        f"is not valid JSON, {_place(error)}: it does not begin with {{", _JSON_CURE
    )


def _in_json(text: str, error: json.JSONDecodeError) -> Finding:
    """Return what is wrong at the place where a text stops being JSON."""
    if not text[error.pos :].strip():
        return Finding(f"is not valid JSON, {_place(error)}: {_CUT_OFF}", _WHOLE)
    rest = text[error.pos : error.pos + _LOOKED_AT]
    all_before = text[: error.pos].rstrip()
    before = all_before[-_LOOKED_AT:]
    for look in (_within_text, _at_end, _of_signs, _of_numbers, _of_words):
        finding = look(before, rest, error)
        if finding:
            place = _place(error)
            if finding.problem.startswith("a comma"):
                place = f"line {all_before.count(chr(10)) + 1}"
            return Finding(
                f"is not valid JSON, {place}: {finding.problem}", finding.cure
            )
    problem = f"is not valid JSON, {_place(error)}: {error.msg}"
    return Finding(problem, "Correct it there or just before.")


def _place(error: json.JSONDecodeError) -> str:
    return f"line {error.lineno} column {error.colno}"


def _within_text(before: str, rest: str, error: json.JSONDecodeError) -> Finding | None:
    if "escape" in error.msg:
        problem = "a backslash stands alone (invalid escape)"
        cure = r"Write \\ or / in paths: C:\\photos or C:/photos."
        return Finding(problem, cure)
    if error.msg.startswith("Invalid control"):
        problem, written = "the line ends inside a text", r"\n"
        if rest[:1] == "\t":
            problem, written = "a tab stands inside a text", r"\t"
        cure = f'Close the text with ", or write {written} in it.'
        return Finding(problem, cure)
    if error.msg.startswith("Unterminated"):
        return Finding("the text that begins here never ends", 'Close it with ".')
    return None


def _at_end(before: str, rest: str, error: json.JSONDecodeError) -> Finding | None:
    if rest.startswith(("//", "/*", "#")):
        return Finding("JSON has no comments", "Remove this one, and any others.")
    if error.msg != "Extra data":
        return None
    if rest[0] in "{[":
        return Finding("a second object begins", "Keep one object in the file.")
    return Finding("there is more after the end", "Remove it, or the bracket before.")


def _of_signs(before: str, rest: str, error: json.JSONDecodeError) -> Finding | None:
    last = before[-1:]
    if last == "," and rest[0] in "}],":
        return Finding("a comma too many", "Remove the last comma.")
    if rest[0] == "," and last in "{[":
        return Finding("a comma too many", "Remove it.")
    if rest[0] in _QUOTES:
        problem = f"{rest[0]} is not a quotation mark in JSON"
        cure = (
            'Write names and texts between double quotes: "learning_rate". '
            "Of a Python dict, json.dump makes JSON."
        )
        return Finding(problem, cure)
    if error.msg.startswith("Expecting value") and rest[0] in "}],":
        return Finding("a value is missing", "Write it, or remove its name.")
    delimiter = re.match(r"Expecting '(.)'", error.msg)
    if delimiter and rest[0] in "=;:":
        return Finding(f"{rest[0]} stands where {delimiter[1]} should", "Change it.")
    if delimiter and delimiter[1] == "," and rest[0] in '"{[':
        return Finding("a comma is missing", "Put one at the end of this line.")
    if delimiter and delimiter[1] == "," and rest[0] in "}]":
        return Finding(f"{rest[0]} closes what another bracket opened", "Change it.")
    return None


def _of_numbers(before: str, rest: str, error: json.JSONDecodeError) -> Finding | None:
    """Say how a number is written: this one begins before the fault, or at it."""
    begun = re.search(r"[\d.eE+,-]*$", before)
    head = begun[0] if begun and "\n" not in rest[:1] else ""
    tail = re.match(r"[\w.%+-]*", rest)
    written = (head + (tail[0] if tail else "")).strip(",")
    number = number_meant(written)
    if number is None:
        return None
    return Finding(f"{written} is not how JSON writes a number", f"Write {number}.")


def _of_words(before: str, rest: str, error: json.JSONDecodeError) -> Finding | None:
    word = _WORD.match(rest)
    if not word:
        return None
    name = word[0][:40]
    if not error.msg.startswith("Expecting value"):
        if error.msg.startswith("Expecting property"):
            return Finding(f"{name} stands without quotes", f'Write "{name}".')
        return None
    low = name.lower()
    meant = _FLAGS.get(low, low)
    if low in _NOTHINGS:
        meant = "null"
    if meant in ("true", "false", "null"):
        return Finding(f"{name} is not a value in JSON", f"Write {meant}.")
    return Finding(f"{name} stands without quotes", f'Write "{name}".')
