"""The Data tab: folders of images, what is in them, and what a run makes of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nicegui import Event, ui
from nicegui.element import Element
from pydantic import ValidationError

from blockrate.config.partners import asks_for_masks
from blockrate.config.parts import Concept
from blockrate.config.train_config import TrainConfig
from blockrate.dataset.survey import Folder, Survey, counted, survey
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change, field, section
from blockrate.ui.parts.dialogs import ask, icon_button
from blockrate.ui.parts.follow import (
    entries,
    fields,
    rebuild_on_change,
    show_from_thread,
)
from blockrate.ui.parts.picker import pick
from blockrate.ui.session import Session
from blockrate.ui.tabs.arriving import new_data_set, upload_into
from blockrate.ui.tabs.findings import findings_list, lines_to_show
from blockrate.ui.tabs.rename import rename_data_set
from blockrate.ui.tabs.thumbnails import Thumbnails, ToShow

# What stands in the card of a concept: at its head, below that, and behind More settings.
_FIRST = (
    "enabled",
    "type",
    "name",
    "path",
)
_THEN = (
    "role",
    "balancing",
    "balancing_strategy",
    "text.prompt_source",
    "text.caption_form",
    "include_subdirectories",
    "references",
    "masks",
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
# By this name a page finds the pictures of a concept, beside its settings.
IMAGES = "images"
# What stands in the card for all images.
_ALL = (
    "aspect_ratio_bucketing",
    "validation",
    "validate_after",
    "validate_after_unit",
    "concept_file_name",
)


class ToSurvey(NamedTuple):
    """What a survey depends on. ``looks``: how often the user asked to look again."""

    looks: int
    config: TrainConfig


class DataTab:
    """What the parts of the tab share: the page, and the newest survey."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session = page.session
        self.survey = Survey()
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
        return ToSurvey(self.page.looks, counted(config))

    def concepts(self) -> list[Concept]:
        """The concepts as they stand; a wrong one is there, and off."""
        return concepts_of(self.session)

    def take_survey(self, result: Survey) -> None:
        """Show a newer survey."""
        self.survey = result
        self.changed.emit()

    def look_again(self) -> None:
        """Look into the folders anew."""
        self.page.look_again()

    def folder(self, index: int) -> Folder:
        """What is known of a concept's folder so far."""
        if index < len(self.survey.folders):
            return self.survey.folders[index]
        return Folder(problem="Looking into the folder")


def concepts_of(session: Session) -> list[Concept]:
    """Return the concepts of the open config; a wrong one is there, and off."""
    return [_concept(raw) for raw in entries(session.get("concepts"))]


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
            _cards(tab)
        new_data_set(page, tab.concepts, tab.look_again)
    with ui.element("div").classes("stack"):
        with section("What training sees"):
            with ui.element("div"):
                rebuild_on_change(
                    tab.changed, lambda: tab.survey, partial(_totals, tab)
                )
            findings_list(tab.changed, lambda: findings_of(tab, None))
        fields(page.session, "All images", *_ALL)


async def add_folder(page: Page) -> None:
    """Let the user choose a folder of images, which becomes a concept."""
    concepts = concepts_of(page.session)
    start = str(Path(concepts[-1].path).parent) if concepts else ""
    if folder := await pick(page, kind="folder", start=start):
        concept = {"name": Path(folder).name, "path": folder}
        number = len(concepts_of(page.session))
        page.session.set({f"concepts.{number}": concept})


def _cards(tab: DataTab) -> None:
    """A card for each concept: one more or less leaves what is written or on its way in the others."""
    stack = ui.context.slot.parent
    cards: list[Element] = []

    def refresh() -> None:
        count = len(tab.concepts())
        for card in cards[count:]:
            card.delete()
        del cards[count:]
        for index in range(len(cards), count):
            with stack, ui.element("div") as card:
                _card(tab, index)
            cards.append(card.move(target_index=index))

    call_on_change(tab.session.changed, refresh)
    with ui.element("div"):
        rebuild_on_change(
            tab.session.changed, lambda: bool(tab.concepts()), partial(_one_more, tab)
        )


def _one_more(tab: DataTab, others: bool) -> None:
    """The card that brings a folder of images in. ``others``: there are some."""
    with ui.element("div").classes("card empty"):
        if not others:
            ui.icon("photo_library")
            ui.label(
                "Ten to thirty images are enough for a first LoRA. What a photo shows, say in a .txt beside it."
            )
        more = ui.button(
            "Add a folder of images",
            icon="create_new_folder",
            on_click=partial(add_folder, tab.page),
        )
        more.props("no-caps unelevated")
    controls = tab.page.controls
    # for what is wrong with all of them
    controls["concepts"] = controls["concepts.0.enabled"] if others else more


def _card(tab: DataTab, index: int) -> None:
    session = tab.session
    at = f"concepts.{index}"
    first = [f"{at}.{name}" for name in _FIRST]
    with fields(session, f"Concept {index + 1}", *first):
        _remove_button(tab, index)
        _told_of_folder(tab, index)
        findings_list(tab.changed, lambda: findings_of(tab, index))
        shown = {
            name: field(session, f"{at}.{name}", classes=_width(name)) for name in _THEN
        }
        file = field(session, f"{at}.text.prompt_path")
        with ui.expansion("Images and captions", icon="photo_library") as fold:
            every = partial(_to_show, tab, index)
            shown_images = Thumbnails(
                tab.page, tab.changed, every, tab.look_again, fold
            )
        fold.classes("fold")
        # whoever comes to look at them
        tab.page.controls[f"{at}.{IMAGES}"] = shown_images.bar.first
        _folds(tab, at)

    def refresh() -> None:
        file.set_visibility(session.get(f"{at}.text.prompt_source") == "concept")
        is_measured = session.get(f"{at}.type") == "VALIDATION"
        shown["role"].set_visibility(is_measured or session.get(f"{at}.role") == "keep")
        wants_masks = asks_for_masks(session.usable) or session.get(f"{at}.masks")
        shown["masks"].set_visibility(bool(wants_masks))

    with file:
        call_on_change(tab.changed, refresh)
        call_on_change(session.changed, refresh)


def _told_of_folder(tab: DataTab, index: int) -> None:
    """What a concept's folder holds, and another name for it."""
    session = tab.session
    path = f"concepts.{index}.path"
    facts = ui.label().classes("facts").props("aria-live=polite")
    rename = partial(_rename, tab, partial(session.get, path))
    button = ui.button("Rename the folder", on_click=rename)
    button.props("flat no-caps dense")

    def refresh() -> None:
        facts.set_visibility(not session.problem(path))
        facts.set_text(_facts(tab.folder(index)))
        button.set_visibility(not tab.folder(index).problem)

    with facts:
        call_on_change(tab.changed, refresh)
        call_on_change(session.changed, refresh)


async def _rename(tab: DataTab, path: Callable[[], Any]) -> None:
    await rename_data_set(tab.page, str(path()), tab.look_again)


def _folds(tab: DataTab, at: str) -> None:
    """What most people open seldom."""
    path = partial(tab.session.get, f"{at}.path")
    with ui.expansion("Bring images in", icon="upload").classes("fold"):
        upload_into(tab.page, path, tab.look_again)
    with (
        ui.expansion("More settings", icon="tune").classes("fold"),
        ui.element("div").classes("card-body"),
    ):
        for name in _RARE:
            field(tab.session, f"{at}.{name}", classes="half")


def _width(name: str) -> str:
    """Paths are as wide as the card."""
    return "" if name in ("references", "masks") else "half"


def _to_show(tab: DataTab, index: int) -> ToShow:
    """Return all images of a concept, and whose they are."""
    concepts = tab.concepts()
    concept = concepts[index] if index < len(concepts) else Concept()
    is_known = index < min(len(concepts), len(tab.survey.folders))
    images = tab.folder(index).images if is_known else None
    masked = asks_for_masks(tab.session.usable)
    return ToShow(tab.page.looks, concept, images, masked)


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


def counts_in_words(result: Survey) -> str:
    """Return how many images and steps there are, for the bar at the bottom."""
    if not result.all:
        return "No images yet"
    words = [f"{result.all:,} images", f"about {result.steps:,} steps"]
    if result.unreadable:
        words.insert(1, f"{result.unreadable:,} unreadable")
    return " · ".join(words)
