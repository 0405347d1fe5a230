"""The text that selects blocks: what it selects, how it is written, what is wrong with it."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.core.errors import ConfigError
from blockrate.core.selection import parse_selection, selection_text

FLUX1 = BlockLayout(19, 38)
LAYOUTS = st.builds(BlockLayout, st.integers(0, 21), st.integers(0, 40))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("all", FLUX1.names),
        ("double", FLUX1.names[:19]),
        ("single", FLUX1.names[19:]),
        ("single even", FLUX1.names[19::2]),
        ("single odd", FLUX1.names[20::2]),
        (
            "single 1-3; double 5",
            ("double_block_5", "single_block_1", "single_block_2", "single_block_3"),
        ),
        (" Single 7 , 7 , 6 ;", ("single_block_6", "single_block_7")),
        ("double 0 – 2".replace(" – ", "–"), FLUX1.names[:3]),  # noqa: RUF001
        ("double 1 3", ("double_block_1", "double_block_3")),
        ("other; double 0", ("double_block_0", OTHER)),
    ],
)
def test_a_text_selects(text: str, names: tuple[str, ...]) -> None:
    assert parse_selection(text, FLUX1) == names


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("single 99", "single 99 does not exist (0-37)"),
        ("double 0-19", "double 19 does not exist (0-18)"),
        ("double 5-2", "double 5-2 runs backwards"),
        (
            "double x",
            "double 'x' is neither a number, a range like 16-20, even nor odd",
        ),
        ("double -1", "double '-1' is neither"),
        ("tripel 3", "'tripel 3' is neither all, double, single nor other"),
        ("all 3", "'all 3' is neither"),
        ("", "no block is selected"),
        (None, "no block is selected"),
        (" ; ", "no block is selected"),
    ],
)
def test_a_wrong_text_says_what_is_wrong(text: str | None, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_selection(text, FLUX1)
    assert problem in caught.value.problem
    assert "single 7,12,16-20" in caught.value.cure


@pytest.mark.parametrize(
    ("text", "offer"),
    [
        ("double_block_7", "Did you mean double 7?"),
        ("Double Block 7", "Did you mean double 7?"),
        ("double_block_7, double_block_9; single_block_0", "double 7,9; single 0?"),
        ("transformer_blocks.7", "Did you mean double 7?"),
        ("transformer_blocks.0-3", "Did you mean double 0-3?"),
        ("single_blocks.7", "Did you mean single 7?"),
        ("diffusion_model.double_blocks.0.img_attn.qkv", "Did you mean double 0?"),
        ("lora_unet_single_blocks_7_linear2", "Did you mean single 7?"),
        ("transformer.single_transformer_blocks.7.proj_out", "single 7?"),
        ("train_double_block_indices=0-3,7", "Did you mean double 0-3,7?"),
        ("double_blocks: 0-3", "Did you mean double 0-3?"),
        ("double_block_0..3", "Did you mean double 0-3?"),
        ("double_blocks 0 to 3", "Did you mean double 0-3?"),
        ("single_blocks", "Did you mean single?"),
        ("transformer_blocks_7", "Did you mean double 7?"),
        ("7", "Of which kind: double 7 or single 7?"),
        ("0-3", "Of which kind: double 0-3 or single 0-3?"),
        ("double_block_" + "9" * 5000, None),
        ("double_block_0-999999999", None),
        ("double_block_19", None),
    ],
)
def test_for_names_of_other_tools_the_fitting_text_is_offered(
    text: str, offer: str | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_selection(text, FLUX1)
    if offer:
        assert caught.value.cure.endswith(offer)
        meant = caught.value.cure.removeprefix("Did you mean ").removesuffix("?")
        if meant != caught.value.cure.removesuffix("?"):
            assert parse_selection(meant, FLUX1)
    else:
        assert caught.value.cure.startswith("Write it like: all")


def test_the_written_text_is_short() -> None:
    for text in (
        "all",
        "double",
        "single even; other",
        "double 0-5; single 7,12,16-20",
        "double; single odd",
    ):
        assert selection_text(parse_selection(text, FLUX1), FLUX1) == text
    assert selection_text((), FLUX1) == ""


@settings(deadline=None)
@given(st.data(), LAYOUTS)
def test_a_selection_comes_back_from_its_text(
    data: st.DataObject, layout: BlockLayout
) -> None:
    chosen = data.draw(st.sets(st.sampled_from((*layout.names, OTHER)), min_size=1))
    ordered = tuple(name for name in (*layout.names, OTHER) if name in chosen)
    assert parse_selection(selection_text(chosen, layout), layout) == ordered


@given(st.text("dosinglube althr0123456789-,;", max_size=30))
def test_no_text_does_anything_but_select_or_raise(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert parse_selection(text, FLUX1)
