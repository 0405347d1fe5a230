"""The Data tab: folders of images, what is in them, and what a run makes of them."""

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from nicegui import Event, ui
from pydantic import ValidationError

from blockrate.config.parts import CaptionForm, Concept
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError, FileError
from blockrate.dataset.captions import (
    Names,
    caption_names,
    captions_of,
    read_captions,
)
from blockrate.dataset.survey import Folder, Survey, counted, survey
from blockrate.ui.media import Media
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, field, section
from blockrate.ui.parts.dialogs import ask, icon_button
from blockrate.ui.parts.follow import (
    entries,
    fields,
    pager,
    rebuild_on_change,
    show_from_thread,
)
from blockrate.ui.parts.picker import pick
from blockrate.ui.tabs.captions import edit_caption
from blockrate.ui.tabs.findings import findings_list, lines_to_show

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
    "text.caption_form",
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


class ToSurvey(NamedTuple):
    """What a survey depends on. ``looks``: how often the user asked to look again."""

    looks: int
    config: TrainConfig


class ToShow(NamedTuple):
    """Images whose thumbnails are to be shown, and of which concept."""

    looks: int
    concept: Concept
    images: tuple[Path, ...]


class Captioned(NamedTuple):
    """An image with its caption, and whether that can be edited."""

    path: Path
    caption: str
    editable: bool


class DataTab:
    """What the parts of the tab share: the page, and the newest survey."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session = page.session
        self.survey = Survey()
        self.looks = 0
        self.changed: Event[[]] = Event()
        show_from_thread(
            self.session.changed,
            self.to_survey,
            lambda wanted: survey(wanted.config),
            self.take_survey,
        )

    def to_survey(self) -> ToSurvey:
        """What a survey depends on: all else may change or be wrong."""
        config = self.session.usable.model_copy(update={"concepts": self.concepts()})
        return ToSurvey(self.looks, counted(config))

    def concepts(self) -> list[Concept]:
        """The concepts as they stand; a wrong one is there, and off."""
        return [_concept(raw) for raw in entries(self.session.get("concepts"))]

    def take_survey(self, result: Survey) -> None:
        """Show a newer survey."""
        self.survey = result
        self.changed.emit()

    def look_again(self) -> None:
        """Look into the folders anew."""
        self.looks += 1
        self.session.changed.emit()

    def folder(self, index: int) -> Folder:
        """What is known of a concept's folder so far."""
        if index < len(self.survey.folders):
            return self.survey.folders[index]
        return Folder(problem="Looking into the folder")


def _concept(raw: Any) -> Concept:
    try:
        return Concept.model_validate(raw).model_copy(update={"name": ""})
    except ValidationError:
        return Concept(enabled=False)


def build(page: Page) -> None:
    """Lay out the tab."""
    with ui.element("div").classes("stack with-images"):
        tab = DataTab(page)
        with ui.element("div").classes("stack"):
            rebuild_on_change(
                page.session.changed, lambda: len(tab.concepts()), partial(_cards, tab)
            )
    with ui.element("div").classes("stack"):
        with section("What training sees"):
            with ui.element("div"):
                rebuild_on_change(
                    tab.changed, lambda: tab.survey, partial(_totals, tab)
                )
            findings_list(tab.changed, lambda: findings_of(tab, None))
        fields(page.session, "All images", *_ALL)


def _cards(tab: DataTab, count: int) -> None:
    async def add() -> None:
        start = str(Path(tab.concepts()[-1].path).parent) if count else ""
        if folder := await pick(tab.page, kind="folder", start=start):
            concept = {"name": Path(folder).name, "path": folder}
            tab.session.set({f"concepts.{len(tab.concepts())}": concept})

    for index in range(count):
        _card(tab, index)
    with ui.element("div").classes("card empty"):
        if not count:
            ui.icon("photo_library")
            ui.label(
                "Ten to thirty images are enough for a first LoRA. What a photo shows, say in a .txt beside it."
            )
        more = ui.button(
            "Add a folder of images", icon="create_new_folder", on_click=add
        )
        more.props("no-caps unelevated")
    controls = tab.page.controls
    # for what is wrong with all of them
    controls["concepts"] = controls["concepts.0.enabled"] if count else more


def _card(tab: DataTab, index: int) -> None:
    session = tab.session
    at = f"concepts.{index}"
    first = [f"{at}.{name}" for name in _FIRST]
    with fields(session, f"Concept {index + 1}", *first):
        _remove_button(tab, index)
        facts = ui.label().classes("facts")
        findings_list(tab.changed, lambda: findings_of(tab, index))
        for name in _THEN:
            field(session, f"{at}.{name}", classes="half")
        file = field(session, f"{at}.text.prompt_path")
        with ui.expansion("Images and captions", icon="photo_library") as fold:
            Thumbnails(tab, index, fold)
        fold.classes("fold")
        with (
            ui.expansion("More settings", icon="tune").classes("fold"),
            ui.element("div").classes("card-body"),
        ):
            for name in _RARE:
                field(session, f"{at}.{name}", classes="half")

    def refresh() -> None:
        file.set_visibility(session.get(f"{at}.text.prompt_source") == "concept")
        facts.set_visibility(not session.problem(f"{at}.path"))
        facts.set_text(_facts(tab.folder(index)))

    facts.props["aria-live"] = "polite"
    with facts:
        call_on_change(tab.changed, refresh)
        call_on_change(session.changed, refresh)


def _remove_button(tab: DataTab, index: int) -> None:
    session = tab.session
    at = f"concepts.{index}"

    async def remove() -> None:
        name = session.get(f"{at}.name") or session.get(f"{at}.path")
        choices = ["Cancel", "Remove"]
        answer = await ask(f"Remove {name}?", "The folder and its files stay.", choices)
        if answer == "Remove":
            session.remove(at)

    button = icon_button("delete_outline", f"Remove concept {index + 1}", remove)
    button.classes("corner")


def findings_of(tab: DataTab, index: int | None) -> tuple[str, ...]:
    """Return what is to be said of a concept, or of all, as it may be shown."""
    shown = tab.concepts()
    if index is not None:
        shown = shown[index : index + 1]
    told = [found for found in tab.survey.findings if found.concept == index]
    return lines_to_show(tab.page.media, shown, told)


def _facts(folder: Folder) -> str:
    if folder.problem:
        return folder.problem
    number = len(folder.images)
    images = "1 image" if number == 1 else f"{number:,} images"
    captions = "all with a caption"
    if folder.bare:
        captions = f"{folder.bare:,} without a caption"
    return f"{images}, {captions}"


def _totals(tab: DataTab, result: Survey) -> None:
    if result.steps is None:
        ui.label(f"{result.done:,} of {result.all:,} images measured")
        bar = ui.element("progress").classes("full")
        bar.props.update(
            {
                "max": result.all or 1,
                "value": result.done,
                "aria-label": "Images measured",
            }
        )
        return
    ui.label(_totals_in_words(result, result.steps)).classes("totals")
    with ui.element("ul").classes("bars") as chart:
        chart.props["aria-label"] = "Images by bucket"
        for bucket, number in sorted(result.buckets.items()):
            share = number / max(result.buckets.values())
            with ui.element("li"):
                ui.label(f"{bucket.width} x {bucket.height}")
                ui.element("span").style(f"width: {100 * share:.1f}%")
                ui.label(f"{number:,}")
    again = ui.button("Look again", icon="refresh", on_click=tab.look_again)
    again.props("flat no-caps dense")


def _totals_in_words(result: Survey, steps: int) -> str:
    if not result.all:
        return "No images yet"
    images = f"{result.all:,} images"
    if result.unreadable:
        images = f"{images}, {result.unreadable:,} of them unreadable"
    return f"{images}, about {steps:,} steps"


class Thumbnails:
    """Thumbnails of one concept, a page at a time, read when they are looked at and when the folder has changed."""

    def __init__(self, tab: DataTab, index: int, fold: ui.expansion) -> None:
        self.tab = tab
        self.index = index
        self.fold = fold
        self.first = 0
        self.grid = ui.element("ul").classes("gallery")
        self.pager = ui.element("div").classes("pager")
        fold.on_value_change(tab.changed.emit)
        show_from_thread(
            tab.changed, self.to_show, partial(_captions, tab.page.media), self.show
        )

    def images(self) -> tuple[Path, ...]:
        """What there is to show: nothing while the fold is closed."""
        return self.tab.folder(self.index).images if self.fold.value else ()

    def concept(self) -> Concept:
        """Whose images they are."""
        concepts = self.tab.concepts()
        return concepts[self.index] if self.index < len(concepts) else Concept()

    def to_show(self) -> ToShow:
        """Which images to show, and whose."""
        images = self.images()
        last_page = (len(images) - 1) // _A_PAGE
        self.first = max(0, min(self.first, last_page * _A_PAGE))
        looks = self.tab.looks
        return ToShow(looks, self.concept(), images[self.first : self.first + _A_PAGE])

    def go_to(self, first: int) -> None:
        """Show another page."""
        self.first = first
        self.tab.changed.emit()

    def show(self, images: list[Captioned]) -> None:
        """Lay the thumbnails out."""
        problem = ""
        self.grid.clear()
        self.pager.clear()
        with self.grid:
            for image in images:
                try:
                    self._thumbnail(image)
                except ConfigError as error:  # outside the roots
                    problem = f"No thumbnails: {error.problem}. {error.cure}"
        with self.pager:
            note = ui.label(problem).classes("field-note")
            note.set_visibility(bool(problem))
            pager("images", self.first, len(self.images()), _A_PAGE, self.go_to)

    def _thumbnail(self, image: Captioned) -> None:
        url = self.tab.page.media.file_url(image.path, size=_PIXELS)
        # a name need not be UTF-8, and a browser wants no other
        name = image.path.name.encode(errors="replace").decode()

        async def edit() -> None:
            form = self.concept().text.caption_form
            if await edit_caption(self.tab.page, image.path, url, form):
                self.tab.look_again()

        with ui.element("li"):
            frame = ui.element("button" if image.editable else "div")
        with frame.classes("thumbnail"):
            picture = ui.element("img")
            picture.props.update({"src": url, "alt": name, "loading": "lazy"})
            caption = ui.label(image.caption or "No caption")
        # what cannot be drawn is named, and marked
        picture.on(
            "error",
            js_handler="(event) => event.target.parentElement.classList.add('is-broken')",
        )
        frame.props["data-name"] = f"{name} cannot be read"
        if not image.caption:
            caption.classes("is-missing")
        if image.editable:
            frame.props["type"] = "button"
            frame.props["aria-label"] = f"Edit the caption of {name}"
            frame.on("click", edit)


def _captions(media: Media, wanted: ToShow) -> Iterator[list[Captioned]]:
    editable = wanted.concept.text.prompt_source == "sample"
    names = cache(caption_names)
    yield [
        Captioned(path, _caption(media, wanted.concept, path, names), editable)
        for path in wanted.images
    ]


def _caption(media: Media, concept: Concept, path: Path, names: Names) -> str:
    def read(file: Path, form: CaptionForm) -> tuple[str, ...]:
        return read_captions(media.resolve_inside(file), form)

    try:
        return "\n".join(captions_of(concept, path, read, names))
    except (ConfigError, FileError) as error:
        return f"{error.problem}."
