"""Whatever a config file holds, it is a valid config or one clear error: never a traceback."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockrate.config.files import config_json, load_config
from blockrate.config.onetrainer_sections import foreign_names
from blockrate.config.plan import make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError

DEFAULTS: dict[str, Any] = json.loads(
    config_json(TrainConfig.model_validate({"concepts": [{}], "samples": [{}]}))
)
PRESET = (
    Path(__file__).parents[2] / "src/blockrate/config/presets/flux_lora.json"
).read_bytes()
WORDS = [
    "NEVER",
    "EPOCH",
    "FLUX_DEV_1",
    "ADAMW",
    "FINE_TUNE",
    "NFLOAT_4",
    "high",
    "512,x",
    "-1",
    "tiny-flux1",
    ".",
    "\0",
    "é",
]
ODD = [
    float("nan"),
    float("inf"),
    -0.0,
    1e308,
    10**400,
    2**63,
    -1,
    0,
    1.5,
    "",
    True,
    None,
    [],
    {},
    [[]],
    {"": {}},
]

names = st.sampled_from(
    [
        *DEFAULTS,
        *foreign_names(),
        "double_block_0",
        "single_block_38",
        "prior",
        "__version",
    ]
) | st.text(max_size=8)
leaves = (
    st.sampled_from([*ODD, *WORDS]) | st.integers() | st.floats() | st.text(max_size=12)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def odd_configs(draw: st.DrawFn) -> bytes:
    """The whole default config, with some values, also of nested parts, replaced, and some keys more or less."""
    config: dict[str, Any] = json.loads(json.dumps(DEFAULTS))
    for _ in range(draw(st.integers(0, 4))):
        place: Any = config
        while isinstance(place, dict | list) and place and draw(st.booleans()):
            key = draw(
                st.sampled_from(
                    range(len(place)) if isinstance(place, list) else [*place, None]
                )
            )
            inside = place[key] if key is not None else None
            if not isinstance(inside, dict | list):
                break
            place = inside
        if isinstance(place, dict):
            place[draw(names | st.sampled_from([*place, "x"]))] = draw(values)
        else:
            place.append(draw(values))
    for name in draw(st.lists(st.sampled_from([*DEFAULTS]), max_size=3)):
        config.pop(name, None)
    return json.dumps(config).encode()


@st.composite
def broken_bytes(draw: st.DrawFn) -> bytes:
    """A preset with bytes changed, cut out or put in."""
    data = bytearray(PRESET)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 3))] = draw(
            st.binary(max_size=3) | st.sampled_from([b'"', b"{", b"[", b"1e999"])
        )
    return bytes(data)


def check(folder: Path, content: bytes) -> None:
    """The promise, for one file."""
    path = folder / "config.json"
    path.write_bytes(content)
    try:
        loaded = load_config(path)
        make_plan(loaded.config)
    except BlockrateError as error:
        told: BlockrateError | None = error
    else:
        told = None
        path.write_text(config_json(loaded.config), encoding="utf-8")
        assert load_config(path).config == loaded.config
    assert told is None or (told.exit_code in (2, 65) and len(str(told)) < 20_000)


def fuzzed(
    examples: int, contents: st.SearchStrategy[bytes]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    limits = settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck)
    )
    return lambda test: limits(given(content=contents)(test))


@fuzzed(250, odd_configs())
def test_odd_values_are_told_or_taken(tmp_path: Path, content: bytes) -> None:
    check(tmp_path, content)


@fuzzed(250, broken_bytes())
def test_broken_bytes_are_told_or_taken(tmp_path: Path, content: bytes) -> None:
    check(tmp_path, content)


@pytest.mark.soak
@fuzzed(10_000, odd_configs() | broken_bytes())
def test_ten_thousand_files_are_told_or_taken(tmp_path: Path, content: bytes) -> None:
    check(tmp_path, content)
