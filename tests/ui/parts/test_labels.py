"""Words of the interface, made from settings and from sentences of the trainer."""

import pytest

from blockrate.ui.parts.labels import in_labels, label_of, sentence


@pytest.mark.parametrize(
    "text",
    [
        "learning_rate_warmup_steps 200 is more than the run has steps",
        "layer_filter: 'x' lets through double 7",
        "concepts.0.path: is not a folder",
        "photos/a.txt: holds JSON",
        "photos\\a.txt: holds JSON",
        "cat.png: is cut off",
        ".heic is not read",
    ],
)
def test_a_sentence_keeps_the_name_it_begins_with(text: str) -> None:
    assert sentence(text) == text


def test_other_sentences_begin_with_a_large_letter() -> None:
    assert sentence("the run is done.") == "The run is done."
    assert sentence("finished. See a_b") == "Finished. See a_b"
    assert sentence("") == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "raise text_encoder_2_sequence_length, up to 512",
            'raise "T5 sequence length" (Model), up to 512',
        ),
        (
            "Check transformer.model_name and base_model_name.",
            'Check "Transformer from" (Model) and "Base model" (Model).',
        ),
        (
            "or one of ADAMW, ADAMW_8BIT, SCHEDULE_FREE_ADAMW, SGD.",
            "or one of AdamW, AdamW 8-bit, Schedule-free AdamW, SGD.",
        ),
        ("concepts.0.path: is gone", '"Folder" (Data): is gone'),
        ("Set it to FLUX_DEV_1.", "Set it to FLUX.1-dev."),
        ("FLUX_DEV_1.safetensors is gone", "FLUX_DEV_1.safetensors is gone"),
        # what only looks like one
        ("the epochs of the resolution", "the epochs of the resolution"),
        ("workspace/cache_dir/x", "workspace/cache_dir/x"),
        ("'layer_filter' is a folder", "'layer_filter' is a folder"),
        ("double_block_0 has 0.3", "double_block_0 has 0.3"),
        ("Set HF_HUB_OFFLINE", "Set HF_HUB_OFFLINE"),
    ],
)
def test_settings_are_called_as_the_interface_calls_them(text: str, shown: str) -> None:
    assert in_labels(text) == shown


def test_text_encoders_are_called_as_the_model_calls_them() -> None:
    qwen = {"text_encoder": "Qwen3"}
    assert label_of("text_encoder.weight_dtype", qwen) == "Qwen3 weights"
    assert label_of("text_encoder.weight_dtype") == "CLIP weights"
    # one that the model does not have is what it usually is
    assert label_of("text_encoder_2.model_name", qwen) == "T5 from"
    text = in_labels("text_encoder.model_name: is no folder", qwen)
    assert text == '"Qwen3 from" (Model): is no folder'


def test_a_name_that_nobody_knows_may_hold_braces() -> None:
    assert label_of("${alert(3)}") == "${alert(3)}"
