"""Words of the interface, made from settings and from sentences of the trainer."""

import pytest

from blockrate.ui.parts.labels import sentence


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
