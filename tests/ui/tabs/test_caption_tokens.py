"""Tokens of captions, counted as the engine counts them, and told as about right where its tokenizer is not here."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from blockrate.config.base_model import model_spec
from blockrate.config.train_config import TrainConfig
from blockrate.models.token_counts import count_tokens
from blockrate.ui.tabs.caption_tokens import Room, lengths, room_of

TEXTS = ["", "a dog", "a dog,  a Cat\u00e9 \U0001f600 " * 30]


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2"])
def test_tokens_are_those_of_the_library_that_trains(part: str) -> None:
    import blockrate.miniature

    folder = Path(next(iter(blockrate.miniature.__path__))) / part
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wanted = [len(row) for row in tokenizer(TEXTS).input_ids]
    assert count_tokens(folder, TEXTS) == wanted
    assert max(wanted) > 77


def test_a_folder_without_a_tokenizer_that_can_be_read_counts_nothing(
    tmp_path: Path,
) -> None:
    assert count_tokens(tmp_path, TEXTS) is None
    (tmp_path / "tokenizer.json").write_text("{")
    assert count_tokens(tmp_path, TEXTS) is None


def test_what_is_told_says_whether_it_was_counted(tmp_path: Path) -> None:
    config = TrainConfig(base_model_name="miniature", text_encoder_2_sequence_length=20)
    room = room_of(config, model_spec(config))
    assert room
    assert room.most == 20
    short, long = lengths(room, ["a dog\nand a cat", "a dog " * 40], "LINES")
    assert short.words.endswith(" of 20 tokens")
    assert not short.words.startswith("about")
    assert (long.is_cut, "cut off" in long.words) == (True, True)
    whole = lengths(room, ["a dog\nand a cat"], "WHOLE")[0]
    assert whole.words > short.words
    nowhere = Room(512, tmp_path, templated=False)
    assert lengths(nowhere, ["a dog, sitting"], "LINES")[0].words == (
        "about 6 of 512 tokens"
    )
    templated = room._replace(templated=True)
    assert lengths(templated, ["a dog"], "LINES")[0].words.startswith("about ")
    assert lengths(None, ["a dog"], "LINES")[0].words == ""
