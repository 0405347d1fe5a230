"""How a setting is written: its type and limits, and what else is to be known of it."""

import re
from dataclasses import dataclass
from os.path import expanduser
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

# What another value means for a run that goes on, or that has finished.
ANOTHER_RUN: Final = "another run"  # refused: weights, data order or noise hang on it
DATA: Final = "data"  # refused if the engine finds other images or captions
STATE: Final = "state"  # refused where the optimizer's state does not fit any more
MODULES: Final = "modules"  # refused if other modules train by it
RESULT: Final = "result"  # goes on, and from then on learns something else
LENGTH: Final = "length"  # how far it goes: a finished run may go on
OUTPUT: Final = "output"  # what it hands over: a finished run writes that anew
FREE: Final = "free"  # nothing of the result hangs on it
SILENT: Final = "silent"  # likewise, and not worth a word
Change = Literal[
    "another run",
    "data",
    "state",
    "modules",
    "result",
    "length",
    "output",
    "free",
    "silent",
]

# Where it is shown: in a tab, or in a window behind three dots of that tab.
Tab = Literal["Model", "Data", "Training", "Sampling"]
Window = Literal[
    "Block Learning Rate",
    "Learning Rate Scheduler",
    "Optimizer",
    "Timestep Distribution",
    "",
]


class Section(NamedTuple):
    """The settings from one to the next that begins a section, and where they are."""

    heading: str
    tab: Tab
    window: Window = ""


@dataclass(frozen=True)
class Facts:
    """What is written beside a setting; what is None holds as for those around it.

    ``tab``, ``window``: unless the section's; the window "" is the tab itself.
    """

    change: Change | None = None
    section: Section | None = None
    tab: Tab | None = None
    window: Window | None = None


def setting(
    default: Any,
    description: str,
    change: Change | None = None,
    *,
    section: Section | None = None,
    tab: Tab | None = None,
    window: Window | None = None,
    **limits: Any,
) -> Any:
    """Return a field whose description is tooltip, docs and help at once.

    A class as default is made anew each time. What is neither limit nor default is
    kept as ``Facts``; ``config/fields.py`` reads them.
    """
    if isinstance(default, type):
        limits["default_factory"] = default
    else:
        limits["default"] = default
    field: Any = Field(description=description, **limits)
    field.metadata.append(Facts(change, section, tab, window))
    return field


class Settings(BaseModel):
    """Settings that refuse unknown names and not-a-number, at loading and later."""

    model_config = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
    )


@dataclass(frozen=True)
class Place:
    """What the text of a setting leads to, for the button that chooses it.

    ``either``: a folder or a file. ``new``: a folder is chosen, the last name stays.
    """

    kind: Literal["folder", "file", "either", "new"]
    suffixes: tuple[str, ...] = ()  # of files


# Strict, because pydantic would otherwise read true as 1 and "0.5" as 0.5.
Flag = Annotated[bool, Strict()]
Integer = Annotated[int, Strict()]
# far above what anybody means, far below what cannot be counted with
Count = Annotated[int, Strict(), Field(ge=1, le=1_000_000)]
Real = Annotated[float, Strict()]
Fraction = Annotated[float, Strict(), Field(ge=0.0, le=1.0)]
Pixels = Annotated[int, Strict(), Field(ge=16, le=8192, multiple_of=16)]


def _fit(name: str) -> str:
    """Return a path that a disk may take. Raises ValueError for another."""
    if "\0" in name:
        raise ValueError("holds a zero byte, which no path can")
    if len(name) > _LONGEST_PATH:
        raise ValueError(f"has {len(name):,} letters, too many for a path")
    return name


def _can_be_made(name: str) -> str:
    """Return a path that a disk takes. Raises ValueError for another."""
    longest = max(
        len(part.encode(errors="replace")) for part in re.split(r"[/\\]", name)
    )
    if longest > _LONGEST_NAME:
        raise ValueError(
            f"has a name of {longest:,} bytes in it, and disks take {_LONGEST_NAME}"
        )
    return name


def _gpu_numbers(text: str) -> str:
    """Return numbers of GPUs in one spelling. Raises ValueError for what is no list of them."""
    numbers = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(re.fullmatch("[0-9]{1,3}", number) for number in numbers):
        raise ValueError("is no list of numbers like 0,1")
    spelled = [str(int(number)) for number in numbers]
    if len(set(spelled)) < len(spelled):
        raise ValueError("names a GPU twice")
    return ",".join(spelled)


_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif")
_LONGEST_PATH = 4096  # of Linux, the most that any system takes
_LONGEST_NAME = 255  # of a folder or file, on nearly every disk
_FIT = AfterValidator(_fit)
_CAN_BE_MADE = AfterValidator(_can_be_made)
# no shell reads a config, so ~ would be a folder of that name
_HOME = AfterValidator(expanduser)
Folder = Annotated[str, _FIT, _CAN_BE_MADE, _HOME, Place("folder")]
JsonFile = Annotated[str, _FIT, _HOME, Place("file", (".json",))]
LoraFile = Annotated[str, _FIT, _HOME, Place("file", (".safetensors",))]
ImageFile = Annotated[str, _FIT, _HOME, Place("file", _IMAGES)]
TextFile = Annotated[str, _FIT, _HOME, Place("file", (".txt",))]
Model = Annotated[str, _FIT, _HOME, Place("either", (".safetensors", ".gguf"))]
NewPlace = Annotated[str, _FIT, _CAN_BE_MADE, _HOME, Place("new")]
GpuNumbers = Annotated[str, AfterValidator(_gpu_numbers)]

TimeUnit = Literal["NEVER", "EPOCH", "STEP", "SECOND", "MINUTE", "HOUR", "ALWAYS"]
Precision = Literal["FLOAT_32", "BFLOAT_16", "FLOAT_16"]
WeightDtype = Literal[
    "FLOAT_32", "BFLOAT_16", "FLOAT_16", "FLOAT_8", "INT_8", "NFLOAT_4"
]
# those of a transformer: as a GGUF file has them, too
TransformerDtype = Literal[WeightDtype, "GGUF"]
