"""How long a caption is beside what the model takes of it: counted by its own tokenizer, else told as about right."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from nicegui import run, ui

from blockrate.config.base_model import caption_tokens, model_paths
from blockrate.config.parts import CaptionForm
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import BlockrateError
from blockrate.models.families import TransformerSpec
from blockrate.models.files import folder_here
from blockrate.models.hub import repo_of, snapshot_folder
from blockrate.models.token_counts import count_tokens
from blockrate.ui.tabs.captions import CaptionBox

_A_WORD = 1.3  # tokens of an English word, about
_PIECES = re.compile(r"\w+|[^\w\s]")


class Room(NamedTuple):
    """How many tokens of a caption a model takes, and where the tokenizer lies that counts them; None: not here.

    ``templated``: the model puts a caption into a text of its own, which takes some of the room.
    """

    most: int
    tokenizer: Path | None
    templated: bool


class Told(NamedTuple):
    """How long a caption is, in words, and whether it is cut."""

    words: str = ""
    is_cut: bool = False


NOTHING_TOLD = Told()


def room_of(config: TrainConfig, spec: TransformerSpec) -> Room | None:
    """Return the room that a config's model has for a caption, None where that cannot be told. It looks at the disk."""

    def folder_of(name: str, _parts: list[str]) -> Path:
        return folder_here(name, config.cache_dir) or snapshot_folder(repo_of(name))

    with suppress(BlockrateError, OSError, ValueError):
        most = caption_tokens(config, spec)
        # where there are several, the last encoder's are what the transformer gets
        paths = model_paths(config, spec, folder_of)
        last = max(part for part in paths if part.startswith("tokenizer"))
        folder = paths[last] if paths[last].is_dir() else None
        return Room(most, folder, bool(spec.facts.get("has_template")))
    return None


def lengths(room: Room | None, texts: Sequence[str], form: CaptionForm) -> list[Told]:
    """Say of each text of a caption file how long its longest caption is. Slow at first: for threads."""
    if room is None:
        return [NOTHING_TOLD for _ in texts]
    longest = [_longest(text, form) for text in texts]
    counted = count_tokens(room.tokenizer, longest) if room.tokenizer else None
    is_exact = counted is not None and not room.templated
    numbers = counted if counted is not None else list(map(_about, longest))
    return [_told(number, room.most, is_exact=is_exact) for number in numbers]


class TokenLabel:
    """Says below a box how long the caption in it is, as it is written. ``told``: of what is there already."""

    def __init__(
        self,
        box: CaptionBox,
        room: Callable[[], Room | None],
        form: Callable[[], CaptionForm],
        told: Told = NOTHING_TOLD,
    ) -> None:
        self._room = room
        self._form = form
        self._told = told
        self._counted = 0  # how often: what was overtaken is dropped
        self.label = ui.label().classes("caption-tokens dim")
        self._show(told)
        box.on_typed(self.count)

    def tell(self, told: Told) -> None:
        """Say how long the caption in the file is, where that is another than it was: else what is written counts."""
        if told != self._told:
            self._told = told
            self._show(told)

    async def count(self, text: str) -> None:
        """Say how long a text is."""
        self._counted += 1
        number = self._counted
        found = await run.io_bound(lengths, self._room(), [text], self._form())
        if found and number == self._counted:
            self._show(found[0])

    def _show(self, told: Told) -> None:
        self.label.set_text(told.words)
        self.label.classes(**{"add" if told.is_cut else "remove": "is-long"})


def _longest(text: str, form: CaptionForm) -> str:
    lines = [line.strip() for line in text.split("\n")]
    if form == "WHOLE":
        return " ".join(filter(None, lines))
    return max(lines, key=len)


def _about(text: str) -> int:
    return round(_A_WORD * len(_PIECES.findall(text))) + 1


def _told(number: int, most: int, *, is_exact: bool) -> Told:
    about = "" if is_exact else "about "
    words = f"{about}{number:,} of {most:,} tokens"
    if number <= most:
        return Told(words)
    return Told(f"{words}: what is beyond them is cut off", is_cut=True)
