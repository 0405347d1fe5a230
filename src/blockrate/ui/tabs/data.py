"""The Data tab: folders of images, what is in them, and what a run makes of them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from nicegui import Event, ui
from pydantic import ValidationError

from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, FileError
from blockrate.dataset.folders import captions_of, read_captions
from blockrate.dataset.survey import Folder, Survey, counted, survey
from blockrate.ui.media import Media
from blockrate.ui.page import Page
from blockrate.ui.parts.components import field, section, watched
from blockrate.ui.parts.dialogs import ask, icon_button
from blockrate.ui.parts.follow import entries, fields, pager, read_aside, rebuilt
from blockrate.ui.parts.picker import pick
from blockrate.ui.tabs.captions import edit_caption

# What stands in the card of a concept: at its head, below that, and behind More settings.
_FIRST = (
    "enabled",
    "type",
    "name",
    "path",
)
_THEN = (
    "balancing",
    "balancing_strategy",
    "text.prompt_source",
    "include_subdirectories",
)
_RARE = (
    "image.enable_crop_jitter",
    "image.enable_random_flip",
    "image.enable_fixed_flip",
    "text.enable_tag_shuffling",
    "text.tag_delimiter",
    "text.keep_tags_count",
    "image.enable_resolution_override",
    "image.resolution_override",
    "image_variations",
    "text_variations",
    "loss_weight",
    "seed",
)
# What stands in the card for all images.
_ALL = (
    "aspect_ratio_bucketing",
    "validation",
    "validate_after",
    "validate_after_unit",
    "concept_file_name",
)
_A_PAGE = 24
_PIXELS = 320  # of a thumbnail: sharp at 160 on a fine screen
Question = tuple[int, Concept, tuple[Path, ...]]
Shown = tuple[Path, str, bool]  # an image, its caption, and whether that can be edited


class Data:
    """What the parts of the tab share: the page, and the newest survey."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session = page.session
        self.now = Survey()
        self.looks = 0
        self.changed: Event[[]] = Event()
        read_aside(
            self.session.changed, self.asked, lambda asked: survey(asked[1]), self.learn
        )

    def asked(self) -> tuple[int, TrainConfig]:
        """What a survey depends on: all else may change or be wrong."""
        config = self.session.usable.model_copy(update={"concepts": self.concepts()})
        return self.looks, counted(config)

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

    def folder(self, index: int) -> Folder:
        """What is known of a concept's folder so far."""
        return (
            self.now.folders[index]
            if index < len(self.now.folders)
            else Folder(problem="Looking into the folder")
        )


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
            rebuilt(
                page.session.changed,
                lambda: len(data.concepts()),
                partial(_cards, data),
            )
    with ui.element("div").classes("stack"):
        with section("What training sees"), ui.element("div"):
            rebuilt(data.changed, lambda: data.now, partial(_totals, data))
        fields(page.session, "All images", *_ALL)


def _cards(data: Data, count: int) -> None:
    async def add() -> None:
        start = str(Path(data.concepts()[-1].path).parent) if count else ""
        if folder := await pick(data.page, kind="folder", start=start):
            new = {"name": Path(folder).name, "path": folder}
            data.session.set({f"concepts.{len(data.concepts())}": new})

    for index in range(count):
        _card(data, index)
    with ui.element("div").classes("card empty"):
        if not count:
            ui.icon("photo_library")
            ui.label(
                "Ten to thirty images are enough for a first LoRA. What a photo shows, say in a .txt beside it."
            )
        more = ui.button(
            "Add a folder of images", icon="create_new_folder", on_click=add
        ).props("no-caps unelevated")
    controls = data.page.controls
    # for what is wrong with all of them
    controls["concepts"] = controls["concepts.0.enabled"] if count else more


def _card(data: Data, index: int) -> None:
    session = data.session
    at = f"concepts.{index}"

    async def remove() -> None:
        name = str(session.get(f"{at}.name") or session.get(f"{at}.path"))
        if (
            await ask(
                f"Remove {name}?",
                "The folder and its files stay.",
                ["Cancel", "Remove"],
            )
            == "Remove"
        ):
            session.remove(at)

    with fields(session, f"Concept {index + 1}", *(f"{at}.{name}" for name in _FIRST)):
        icon_button("delete_outline", f"Remove concept {index + 1}", remove).classes(
            "corner"
        )
        facts = ui.label().classes("facts")
        for name in _THEN:
            field(session, f"{at}.{name}", classes="half")
        file = field(session, f"{at}.text.prompt_path")
        with ui.expansion("Images and captions", icon="photo_library").classes(
            "fold"
        ) as fold:
            Gallery(data, index, fold)
        with (
            ui.expansion("More settings", icon="tune").classes("fold"),
            ui.element("div").classes("card-body"),
        ):
            for name in _RARE:
                field(session, f"{at}.{name}", classes="half")

    def refresh() -> None:
        file.set_visibility(session.get(f"{at}.text.prompt_source") == "concept")
        facts.set_visibility(not session.problem(f"{at}.path"))
        facts.set_text(_facts(data.folder(index)))

    facts.props["aria-live"] = "polite"
    with facts:
        watched(data.changed, refresh)
        watched(session.changed, refresh)


def _facts(folder: Folder) -> str:
    number = len(folder.images)
    captions = (
        f"{folder.bare:,} without a caption" if folder.bare else "all with a caption"
    )
    return folder.problem or f"{number:,} image{'s' * (number != 1)}, {captions}"


def _totals(data: Data, now: Survey) -> None:
    if now.steps is None:
        ui.label(f"{now.done:,} of {now.all:,} images measured")
        bar = ui.element("progress").classes("full")
        bar.props.update(
            {"max": now.all or 1, "value": now.done, "aria-label": "Images measured"}
        )
        return
    bad = f", {now.unreadable:,} unreadable" if now.unreadable else ""
    images = f"{now.all - now.unreadable:,} images{bad}, about {now.steps:,} steps"
    ui.label(images if now.all else "No images yet").classes("totals")
    with ui.element("ul").classes("bars") as chart:
        chart.props["aria-label"] = "Images by bucket"
        for bucket, number in sorted(now.buckets.items()):
            with ui.element("li"):
                ui.label(f"{bucket.width} x {bucket.height}")
                ui.element("span").style(
                    f"width: {100 * number / max(now.buckets.values()):.1f}%"
                )
                ui.label(f"{number:,}")
    ui.button("Look again", icon="refresh", on_click=data.look_again).props(
        "flat no-caps dense"
    )


class Gallery:
    """Thumbnails of one concept, a page at a time, read when they are looked at and when the folder has changed."""

    def __init__(self, data: Data, index: int, fold: ui.expansion) -> None:
        self.data = data
        self.index = index
        self.fold = fold
        self.first = 0
        self.grid = ui.element("ul").classes("gallery")
        self.pager = ui.element("div").classes("pager")
        fold.on_value_change(data.changed.emit)
        read_aside(
            data.changed, self.asked, partial(_captions, data.page.media), self.show
        )

    def images(self) -> tuple[Path, ...]:
        """What there is to show: nothing while the fold is closed."""
        return self.data.folder(self.index).images if self.fold.value else ()

    def asked(self) -> Question:
        """Which images to show, and whose."""
        looks, config = self.data.asked()
        self.first = max(
            0, min(self.first, (len(self.images()) - 1) // _A_PAGE * _A_PAGE)
        )
        concept = [*config.concepts, Concept()][min(self.index, len(config.concepts))]
        return looks, concept, self.images()[self.first : self.first + _A_PAGE]

    def turn(self, first: int) -> None:
        """Show another page."""
        self.first = first
        self.data.changed.emit()

    def show(self, captions: list[Shown]) -> None:
        """Lay the thumbnails out."""
        unseen = ""
        self.grid.clear()
        self.pager.clear()
        with self.grid:
            for image in captions:
                try:
                    self._thumbnail(*image)
                except ConfigError as error:  # outside the roots
                    unseen = f"No thumbnails: {error.problem}. {error.cure}"
        with self.pager:
            ui.label(unseen).classes("field-note").set_visibility(bool(unseen))
            pager("images", self.first, len(self.images()), _A_PAGE, self.turn)

    def _thumbnail(self, path: Path, caption: str, editable: bool) -> None:
        url = self.data.page.media.file_url(path, size=_PIXELS)
        # a name need not be UTF-8, and a browser wants no other
        name = path.name.encode(errors="replace").decode()

        async def edit() -> None:
            if await edit_caption(self.data.page, path, url):
                self.data.look_again()

        with (
            ui.element("li"),
            ui.element("button" if editable else "div").classes("thumbnail") as frame,
        ):
            ui.element("img").props.update({"src": url, "alt": name, "loading": "lazy"})
            ui.label(caption or "No caption").classes("" if caption else "is-missing")
        if editable:
            frame.props.update(
                {"type": "button", "aria-label": f"Edit the caption of {name}"}
            )
            frame.on("click", edit)


def _captions(media: Media, question: Question) -> Iterator[list[Shown]]:
    _, concept, images = question
    yield [
        (path, _caption(media, concept, path), concept.text.prompt_source == "sample")
        for path in images
    ]


def _caption(media: Media, concept: Concept, path: Path) -> str:
    try:
        return "\n".join(
            captions_of(
                concept, path, lambda file: read_captions(media.resolve_inside(file))
            )
        )
    except (ConfigError, FileError) as error:
        return f"{error.problem}."
