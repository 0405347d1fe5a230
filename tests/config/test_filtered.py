"""What a layer filter is told of: names of other tools, parts that find nothing, parts that take more than meant."""

import json
import re
from typing import Any

import pytest

from blockrate.config.filtered import filter_warnings, matching_layers
from blockrate.config.plan import Plan, make_plan
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.core.filter_text import filter_for
from blockrate.core.regex_cost import is_endless
from blockrate.core.selection import selection_text
from blockrate.models.families import DEFAULT_FAMILY
from blockrate.models.module_table import modules

NAMES = [module.name for module in modules(DEFAULT_FAMILY.spec) if module.linear]
LAYOUT = DEFAULT_FAMILY.spec.layout


def settings(text: str, *, regex: bool = False) -> dict[str, Any]:
    return {"layer_filter": text, "layer_filter_regex": regex}


def plan(text: str, *, regex: bool = False) -> Plan:
    return make_plan(TrainConfig(**settings(text, regex=regex)))


def offered(sentence: str) -> tuple[str, ...]:
    """The modules that the first filter takes which a sentence offers."""
    found = re.search(r"'([^']+)'( with layer_filter_regex true)?[.?]", sentence)
    assert found, sentence
    config = TrainConfig(**settings(found[1], regex=bool(found[2])))
    return matching_layers(config)[0]


def in_block(block: str, inside: str = "") -> list[str]:
    path = block.replace("double_block_", "transformer_blocks.")
    path = path.replace("single_block_", "single_transformer_blocks.")
    return [name for name in NAMES if name.startswith(f"{path}.{inside}")]


QKV_0 = [f"transformer_blocks.0.attn.to_{letter}" for letter in "qkv"]
DOUBLES = [name for name in NAMES if name.startswith("transformer_blocks")]
SINGLES = [name for name in NAMES if name.startswith("single_transformer_blocks")]
DOUBLE_0_TO_3 = [
    name for index in range(4) for name in in_block(f"double_block_{index}")
]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        # ai-toolkit and PEFT
        ("transformer.single_transformer_blocks.7.proj_out", in_block("single_block_7", "proj_out")),
        ("transformer.transformer_blocks.7", in_block("double_block_7")),
        ("lora_transformer_single_transformer_blocks_7_attn_to_k", in_block("single_block_7", "attn.to_k")),
        ("transformer.transformer_blocks.3.attn.to_q.lora_A.weight", in_block("double_block_3", "attn.to_q")),
        # sd-scripts
        ("lora_unet_single_blocks_7_linear2", in_block("single_block_7", "proj_out")),
        ("lora_unet_double_blocks_0_img_attn_qkv", QKV_0),
        ("lora_unet_double_blocks_1_", in_block("double_block_1")),
        ("double_blocks_1_", in_block("double_block_1")),
        ("train_double_block_indices=0-3", DOUBLE_0_TO_3),
        # ComfyUI and BFL
        ("diffusion_model.double_blocks.0.img_attn.qkv", QKV_0),
        ("double_blocks.0", in_block("double_block_0")),
        ("double_blocks.1", in_block("double_block_1")),
        ("single_blocks.7", in_block("single_block_7")),
        ("double_blocks", DOUBLES),
        ("double_blocks.0-3", DOUBLE_0_TO_3),
        ("img_in", ["x_embedder"]),
        ("transformer_blocks_7", in_block("double_block_7")),
        ("final_layer.linear", ["proj_out"]),
        # DiffSynth
        ("blocks.3.attn.a_to_qkv", [f"transformer_blocks.3.attn.to_{letter}" for letter in "qkv"]),
        # ours, and selections
        ("double_block_0..3", DOUBLE_0_TO_3),
        ("double_block_7", in_block("double_block_7")),
        ("single_block_7", in_block("single_block_7")),
        ("double_block_7.attn.to_q", in_block("double_block_7", "attn.to_q")),
        ("double 0-3", DOUBLE_0_TO_3),
        ("Single 7", in_block("single_block_7")),
        ("Transformer_Blocks.3", in_block("double_block_3")),
    ],
)  # fmt: skip
def test_for_a_name_of_another_tool_the_fitting_filter_is_offered(
    text: str, meant: list[str]
) -> None:
    for regex in (False, True):
        with pytest.raises(
            ConfigError, match=r"layer_filter: .* matches none"
        ) as caught:
            plan(text, regex=regex)
        assert sorted(offered(caught.value.cure)) == sorted(meant)
    warnings = plan(f"to_q,{text}").warnings
    assert sorted(offered(warnings[0].partition("modules.")[2])) == sorted(meant)


@pytest.mark.parametrize(
    ("text", "regex", "words"),
    [
        (r"double_blocks\.(0|1)\.", True, "'^transformer_blocks[.](0|1)[.]'"),
        (r"single_blocks\.7", True, "'single_transformer_blocks.7.'"),
        ("transformer_blocks.*attn", False, "set layer_filter_regex to true"),
        (r"transformer_blocks\.7\.", False, "set layer_filter_regex to true"),
        ("attn-only", False, "Did you mean layer_filter_preset attn-only?"),
        ("lora_te1_text_model_encoder", False, "names a text encoder"),
        ("double_blocks.25", False, "This model has the blocks double 0-18"),
        ("0-3", False, "For double 0-3 alone write "),
        ("attention", False, "Did you mean attn?"),
        ("transformer_blcoks.7", False, "Did you mean transformer_blocks.7?"),
        ("x" * 5000, False, "Module names look like"),
        (r"(\w+)+!", False, "Module names look like"),
        ("double_blocks." + "9" * 5000, False, "Module names look like"),
    ],
)
def test_what_finds_nothing_is_told_with_what_may_be_meant(
    text: str, regex: bool, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(text, regex=regex)
    assert caught.value.where == "layer_filter"
    assert words in caught.value.cure
    assert len(str(caught.value)) < 500


def test_the_part_that_finds_nothing_is_told_by_itself() -> None:
    assert plan("attn,ff.nett").warnings == (
        "layer_filter: 'ff.nett' matches none of the 504 modules. Did you mean ff.net?",
    )
    many = ",".join(["attn", *(f"nothing{index}" for index in range(20))])
    warnings = plan(many).warnings
    assert len(warnings) == 6
    assert "15 more parts match none" in warnings[-1]


def test_a_filter_of_more_parts_than_any_is_refused() -> None:
    with pytest.raises(ConfigError, match="has 2,000 parts between commas"):
        plan(",".join(["attn"] * 2000))


@pytest.mark.parametrize(
    ("text", "regex", "taken", "alone"),
    [
        ("transformer_blocks.7", False, "double 7; single 7", ["double 7"]),
        ("transformer_blocks.7.", False, "double 7; single 7", ["double 7"]),
        ("transformer_blocks.7.attn", False, "double 7; single 7", ["double 7"]),
        ("transformer_blocks.1", False, "double 1,10-18; single 1,10-19", ["double 1"]),
        ("blocks.1", False, "double 1,10-18; single 1,10-19", ["double 1", "single 1"]),
        ("blocks.7.", False, "double 7; single 7", ["double 7", "single 7"]),
        ("single_transformer_blocks.1", False, "single 1,10-19", ["single 1"]),
        ("7", False, "double 7,17; single 7,17,27,37", ["double 7", "single 7"]),
        ("transformer_blocks", False, "all", ["double"]),
        (r"transformer_blocks\.7\.", True, "double 7; single 7", ["double 7"]),
        (
            r"transformer_blocks\.(1|2)\.",
            True,
            "double 1-2; single 1-2",
            ["double 1-2"],
        ),
        (
            r"transformer_blocks\.1",
            True,
            "double 1,10-18; single 1,10-19",
            ["double 1"],
        ),
        (r"single_transformer_blocks\.3", True, "single 3,30-37", ["single 3"]),
    ],
)
def test_a_part_that_takes_more_than_meant_is_told_with_what_takes_less(
    text: str, regex: bool, taken: str, alone: list[str]
) -> None:
    warning = plan(text, regex=regex).warnings[0]
    assert warning.startswith(f"layer_filter: '{text}' lets through {taken}. ")
    sentences = re.findall(r"For .*? alone write '.*?'.*?\.(?= |$)", warning)
    assert len(sentences) == len(alone)
    for blocks, sentence in zip(alone, sentences, strict=True):
        assert sentence.startswith(f"For {blocks} alone write ")
        left = make_plan(TrainConfig(**settings_of(sentence)))
        assert selection_text(left.blocks_let_through, LAYOUT) == blocks
        assert left.warnings == ()


def settings_of(sentence: str) -> dict[str, Any]:
    text = sentence.partition("'")[2].partition("'")[0]
    # as it is pasted into a config
    assert json.loads(f'"{text}"') == text
    return settings(text, regex="layer_filter_regex true" in sentence)


def test_of_many_parts_that_take_more_than_meant_the_first_are_told() -> None:
    parts = [f"transformer_blocks.{index}" for index in range(19)]
    warnings = plan(",".join(parts)).warnings
    assert len(warnings) == 6
    assert warnings[-1].endswith("may let through more than they say, too.")


def test_each_part_is_read_as_an_expression_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []

    def counted(pattern: str) -> bool:
        read.append(pattern)
        return is_endless(pattern)

    monkeypatch.setattr("blockrate.core.layer_filter.is_endless", counted)
    part = r"^transformer_blocks\.7\.attn"
    config = TrainConfig(**settings(part, regex=True))
    read.clear()
    assert list(filter_warnings(config, DEFAULT_FAMILY.spec)) == []
    # of the whole filter, and of the part by itself
    assert read == [part, part]


def test_a_block_that_the_model_does_not_have_is_told() -> None:
    warning = plan("transformer_blocks.25").warnings[0]
    assert "lets through single 25. This model has the blocks double 0-18" in warning


@pytest.mark.parametrize(
    ("text", "regex"),
    [
        ("transformer_block", False),
        ("attn", False),
        ("attn,ff.net,proj_mlp", False),
        ("to_q", False),
        ("net.0", False),
        ("norm1", False),
        ("linear_1", False),
        ("single_transformer_blocks.7.proj_out", False),
        ("single_transformer_blocks.7.", False),
        ("single_transformer_blocks", False),
        (r"^transformer_blocks\.7\.", True),
        (r"^transformer_blocks\.(1|2)\.", True),
        (r"^(single_)?transformer_blocks\.\d+\.attn", True),
        ("(?i)ATTN", True),
    ],
)
def test_a_filter_that_takes_what_it_says_is_not_remarked_on(
    text: str, regex: bool
) -> None:
    assert plan(text, regex=regex).warnings == ()


def test_the_plan_says_which_blocks_the_filter_lets_through() -> None:
    made = plan(r"^transformer_blocks\.7\.", regex=True)
    assert made.blocks_let_through == ("double_block_7",)
    assert (made.layers_let_through, made.layers) == (14, 504)
    everything = make_plan(TrainConfig())
    assert everything.blocks_let_through == (*LAYOUT.names, "other")
    assert everything.layers_let_through == everything.layers == 504


def test_the_offered_filter_takes_exactly_what_is_wanted() -> None:
    for wanted in (
        ["x_embedder"],
        QKV_0,
        DOUBLES,
        SINGLES,
        DOUBLE_0_TO_3,
        in_block("single_block_3"),
        [*in_block("double_block_1"), *in_block("single_block_10")],
        [name for name in NAMES if name.endswith("attn.to_q")],
    ):
        offer = filter_for(wanted, NAMES)
        assert offer, wanted[0]
        assert offer.takes(NAMES) == [name for name in NAMES if name in wanted]
    assert filter_for([], NAMES) is None
    # what no short text can say
    assert filter_for(NAMES[::7], NAMES) is None
