"""The layer filter chooses modules as OneTrainer's does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrate.core.errors import ConfigError
from blockrate.core.layer_filter import PRESETS, LayerFilter, split_patterns
from blockrate.models.families import ARCHITECTURES, FAMILIES
from blockrate.models.module_table import modules

LINEARS = [
    module.name for module in modules(FAMILIES["flux1-dev"].spec) if module.linear
]


def chosen(patterns: tuple[str, ...], *, regex: bool = False) -> list[str]:
    layer_filter = LayerFilter(patterns, regex)
    return [name for name in LINEARS if layer_filter.matches(name)]


@pytest.mark.parametrize(
    ("preset", "double", "single", "other"),
    [
        ("full", 14, 6, 10),
        ("blocks", 14, 6, 0),
        ("attn-only", 8, 3, 0),
        ("attn-mlp", 10, 4, 0),
    ],
)
def test_presets_choose_so_many_linears(
    preset: str, double: int, single: int, other: int
) -> None:
    assert len(chosen(PRESETS[preset])) == 19 * double + 38 * single + other


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_part_of_a_preset_finds_something_in_every_model(
    architecture: str, preset: str
) -> None:
    rows = [row for row in FAMILIES.values() if row.architecture == architecture]
    names = [module.name for module in modules(rows[0].spec)]
    chosen = LayerFilter(PRESETS[preset])
    for pattern in chosen.patterns:
        assert any(chosen.finds(pattern, name) for name in names), pattern


def test_a_text_of_ones_own_is_taken_as_it_is_written() -> None:
    assert not LayerFilter(("ff.net",)).matches("transformer_blocks.0.ff.linear_in")


def test_no_pattern_lets_everything_through() -> None:
    assert chosen(()) == LINEARS


def test_a_substring_is_not_a_regular_expression() -> None:
    assert LayerFilter(("attn.to_q",)).matches("transformer_blocks.0.attn.to_q")
    assert not LayerFilter(("attn.to_q",)).matches("transformer_blocks.0.attnXto_q")
    assert LayerFilter(("attn.to_q",), regex=True).matches(
        "transformer_blocks.0.attnXto_q"
    )


def test_a_regular_expression_is_searched_and_may_be_anchored() -> None:
    doubles = chosen((r"^transformer_blocks\.(1|2)\.",), regex=True)
    assert len(doubles) == 28
    assert len(chosen((r"transformer_blocks\.(1|2)\.",), regex=True)) == 28 + 12


def test_a_wrong_regular_expression_is_told_with_its_place() -> None:
    with pytest.raises(
        ConfigError,
        match=r"layer_filter: 'attn\(' is not a valid regular expression.*position 4",
    ):
        LayerFilter(("ok", "attn("), regex=True)
    with pytest.raises(ConfigError, match="is not a valid regular expression"):
        LayerFilter(("a{99999999999}",), regex=True)
    assert not LayerFilter(("attn(",)).matches("attn")


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("", ()),
        (" , ,", ()),
        ("attn, ff.net ,proj_mlp", ("attn", "ff.net", "proj_mlp")),
        (r"blocks\.(1,2),attn", (r"blocks\.(1,2)", "attn")),
        ("[,;]x,y", ("[,;]x", "y")),
        ("x{1,2},y", ("x{1,2}", "y")),
        ("(a,[,(],b),c", ("(a,[,(],b)", "c")),
        (r"a\(,b", (r"a\(", "b")),
        (r"a\\,b", (r"a\\", "b")),
        ("a),b", ("a)", "b")),
        (r"a\,b", (r"a\,b",)),
    ],
)
def test_patterns_split_at_commas_outside_brackets(
    text: str, patterns: tuple[str, ...]
) -> None:
    assert split_patterns(text) == patterns


@given(st.lists(st.text("abc.)]}", min_size=1)))
def test_joined_patterns_come_back(patterns: list[str]) -> None:
    assert split_patterns(",".join(patterns)) == tuple(patterns)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(\w+)+!",
        r"(.*)*x!",
        r"(\w*\.*)*!",
        r"(\w|\w)*!",
        r"(?:(?:\w{1,30}){1,30})x",
        r"(a?)+!",
        r"\w*\w*\w*\w*\w*!",
        "(" * 5000 + ")" * 5000,
    ],
)
def test_an_expression_that_may_take_for_ever_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"layer_filter: .*(for ever|too deeply)"):
        LayerFilter((pattern,), regex=True)
    # as a text it is searched for like any other
    assert not LayerFilter((pattern,)).matches(LINEARS[0])


@pytest.mark.parametrize(
    "pattern",
    [
        r"^transformer_blocks\.[0-9]+\.attn",
        r"^(single_)?transformer_blocks\.\d+\.(attn|ff)",
        r"^transformer_blocks\.(1|2|1[0-9])\.",
        ".*single.*attn.*to_q.*",
        r"(attn\.)+to_q",
        r"(\w{3}){2}",
        "(?i)ATTN",
    ],
)
def test_an_expression_that_people_write_is_taken(pattern: str) -> None:
    LayerFilter((pattern,), regex=True).matches(LINEARS[0])
