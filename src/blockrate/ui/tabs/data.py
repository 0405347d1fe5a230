"""The Data tab: folders of images, what is in them, and what a run makes of them."""

from pathlib import Path
from typing import Any

from nicegui import Event, ui
from pydantic import ValidationError

from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.ui.components import ask, field, section, watched
from blockrate.ui.page import Page
from blockrate.ui.picker import pick
from blockrate.ui.tabs import entries, read_aside, rebuilt
from blockrate.ui.tabs.gallery import Gallery
from blockrate.ui.tabs.survey import Folder, Survey, survey

_COMMON = ("balancing", "balancing_strategy", "text.prompt_source", "include_subdirectories")
_RARE = (
    *("image.enable_crop_jitter", "image.enable_random_flip", "image.enable_fixed_flip", "text.enable_tag_shuffling"),
    *("text.tag_delimiter", "text.keep_tags_count", "image.enable_resolution_override", "image.resolution_override"),
    *("image_variations", "text_variations", "loss_weight", "seed"),
)
_SEEN = ("resolution", "aspect_ratio_bucketing", "batch_size", "epochs", "gradient_accumulation_steps")


class Data:
    """What the parts of the tab share: the page, and the newest survey."""

    def __init__(self, page: Page) -> None:
        self.page, self.session, self.now = page, page.session, Survey()
        self.changed: Event[[]] = Event()
        self.looks = 0
        read_aside(self.session.changed, self.asked, lambda asked: survey(asked[1]), self.learn)

    def asked(self) -> tuple[int, TrainConfig]:
        """What a survey depends on: all else may change or be wrong."""
        config = self.session.config or self.session.last_good
        values = {name: getattr(config, name) for name in _SEEN}
        return self.looks, TrainConfig.model_construct(concepts=self.concepts(), **values)

    def concepts(self) -> list[Concept]:
        """The concepts as they stand; a wrong one is there, and off."""
        return [_concept(raw) for raw in entries(self.session.get("concepts"))]

    def learn(self, now: Survey) -> None:
        """Show a newer survey."""
        self.now = now
        self.changed.emit()

    def look_again(self) -> None:
        """Look into the folders anew."""
        self.looks += 1
        self.session.changed.emit()

    def folder(self, index: int) -> Folder | None:
        """What is known of a concept's folder so far."""
        return self.now.folders[index] if index < len(self.now.folders) else None


def _concept(raw: Any) -> Concept:
    try:
        return Concept.model_validate(raw).model_copy(update={"name": ""})
    except ValidationError:
        return Concept(enabled=False)


def build(page: Page) -> None:
    """Lay out the tab."""
    with ui.element("div").classes("stack with-images"):
        data = Data(page)
        with ui.element("div").classes("stack"):
            rebuilt(page.session.changed, lambda: len(data.concepts()), lambda count: _cards(data, count))
    with ui.element("div").classes("stack"):
        with section("What training sees"), ui.element("div"):
            rebuilt(data.changed, lambda: data.now, lambda now: _totals(data, now))
        with section("All images"):
            for path in ("aspect_ratio_bucketing", "validation", "validate_after", "validate_after_unit"):
                field(page.session, path, classes="half")
            field(page.session, "concept_file_name")


def _cards(data: Data, count: int) -> None:
    async def add() -> None:
        start = str(Path(data.concepts()[-1].path).parent) if count else ""
        if folder := await pick(data.page, kind="folder", start=start):
            place = len(data.concepts())
            data.session.set({f"concepts.{place}": {"name": Path(folder).name, "path": folder}})

    for index in range(count):
        _card(data, index)
    with ui.element("div").classes("card empty"):
        if not count:
            ui.icon("photo_library")
            ui.label("Ten to thirty images are enough for a first LoRA. What a photo shows, say in a .txt beside it.")
        ui.button("Add a folder of images", icon="create_new_folder", on_click=add).props("no-caps unelevated")


def _card(data: Data, index: int) -> None:
    session, at = data.session, f"concepts.{index}"

    async def remove() -> None:
        name = str(session.get(f"{at}.name") or session.get(f"{at}.path"))
        if await ask(f"Remove {name}?", "The folder and its files stay.", ["Cancel", "Remove"]) == "Remove":
            session.remove(at)

    with section(f"Concept {index + 1}"):
        button = ui.button(icon="delete_outline", on_click=remove, color=None).props("flat round dense")
        button.classes("corner").props["aria-label"] = f"Remove concept {index + 1}"
        for name in ("enabled", "type", "name"):
            field(session, f"{at}.{name}", classes="half" if name != "name" else "")
        field(session, f"{at}.path")
        facts = ui.label().classes("facts")
        facts.props["aria-live"] = "polite"
        for name in _COMMON:
            field(session, f"{at}.{name}", classes="half")
        file = field(session, f"{at}.text.prompt_path")
        with ui.expansion("Images and captions", icon="photo_library").classes("fold") as fold:
            Gallery(data, index, fold)
        with ui.expansion("More settings", icon="tune").classes("fold"), ui.element("div").classes("card-body"):
            for name in _RARE:
                field(session, f"{at}.{name}", classes="half")

    def refresh() -> None:
        folder, told = data.folder(index), session.problem(f"{at}.path")
        file.set_visibility(session.get(f"{at}.text.prompt_source") == "concept")
        facts.set_text(_facts(folder) if folder else "Looking into the folder")
        facts.set_visibility(not told)
        facts.classes(remove="is-wrong").classes("is-wrong" if folder and folder.problem else "")

    with facts:
        watched(data.changed, refresh)


def _facts(folder: Folder) -> str:
    number = len(folder.images)
    captions = f"{folder.bare:,} without a caption" if folder.bare else "all with a caption"
    return folder.problem or f"{number:,} image{'s' * (number != 1)}, {captions}"


def _totals(data: Data, now: Survey) -> None:
    if now.steps is None:
        ui.label(f"{now.done:,} of {now.all:,} images measured")
        bar = ui.element("progress").classes("full")
        bar.props.update({"max": now.all or 1, "value": now.done, "aria-label": "Images measured"})
        return
    bad = f", {now.unreadable:,} unreadable" if now.unreadable else ""
    images = f"{now.all - now.unreadable:,} images{bad}, about {now.steps:,} steps"
    ui.label(images if now.all else "No images yet").classes("totals")
    with ui.element("ul").classes("bars") as chart:
        chart.props["aria-label"] = "Images by bucket"
        for bucket, number in sorted(now.buckets.items()):
            with ui.element("li"):
                ui.label(f"{bucket.width} x {bucket.height}")
                ui.element("span").style(f"width: {100 * number / max(now.buckets.values()):.1f}%")
                ui.label(f"{number:,}")
    ui.button("Look again", icon="refresh", on_click=data.look_again).props("flat no-caps dense")
