"""The Block Learning Rate window behind the three-dot button of the layer filter, and a small picture of the rates."""

import json
from collections.abc import Callable
from functools import partial

from nicegui import ui
from nicegui.element import Element

from blockrate.config.base_model import model_spec
from blockrate.config.plan import Plan, make_plan, matching_layers
from blockrate.core.blocks import block_of
from blockrate.core.errors import BlockrateError, ConfigError, WriteError
from blockrate.core.layer_filter import PRESETS, split_patterns
from blockrate.core.profile import KEY, complete, sparse
from blockrate.core.selection import selection_text
from blockrate.models.families import DEFAULT_FAMILY
from blockrate.ui.page import Page
from blockrate.ui.parts.components import watched
from blockrate.ui.parts.dialogs import ask, choice_buttons, small_dialog
from blockrate.ui.session import Session
from blockrate.ui.windows.block_mixer import BlockMixer
from blockrate.ui.windows.optimizer_window import why_not_differing_rates
from blockrate.ui.windows.rates import SHAPES, TEMPLATES, RatesDraft
from blockrate.ui.windows.window import Window

_LOOK = "outlined dense hide-bottom-space no-error-icon"
_LONGEST_NAME = 60
_NO_MODEL = "Choose a Flux model"
_ALL_FROZEN = "Everything is frozen, so nothing would train. Start waits until a fader is above 0."
# and neither taken nor thrown away, as when a page vanishes
_LEFT = "rates that were drawn"


def open_block_learning_rate_window(page: Page, opener: Element) -> None:
    """Open the window; ``opener`` gets the focus back."""
    BlockLearningRateWindow(page, opener).open()


def why_not_block_rates(session: Session) -> str:
    """Why the window cannot be opened with this config, ``""`` if it can."""
    config = session.usable
    try:
        model_spec(config)
    except BlockrateError:
        return _NO_MODEL
    patterns = split_patterns(config.layer_filter) or PRESETS["blocks"]
    chosen = config.layer_filter_preset == "blocks" and patterns == PRESETS["blocks"]
    return "" if chosen else 'Choose the "blocks" filter'


class BlockLearningRateWindow(Window):
    """The window over the rates of the open config."""

    def __init__(self, page: Page, opener: Element) -> None:
        self._session = page.session
        self._config = page.session.usable
        layout = model_spec(self._config).layout
        opened = page.session.get(KEY)
        other_trains = not all(map(block_of, matching_layers(self._config)[0]))
        self._rates = RatesDraft(layout, opened, other_trains=other_trains)
        super().__init__(
            page,
            "Block Learning Rate",
            opener=opener,
            is_dirty=lambda: self._rates.dirty,
            on_ok=lambda: (
                self._session.set({KEY: self._rates.state})
                if self._rates.dirty
                else None
            ),
            on_reset=lambda: self._do(lambda: self._rates.replace({}), "All at 1.0"),
            is_stale=lambda: self._session.get(KEY) != self._rates.opened,
            reset_label="Reset All to 1.0",
            wide=True,
        )
        with self.header():
            self._base = ui.label().classes("rates-base")
        with self.body():
            self._offer_left()
            self._refusal, self._wrong = (
                ui.label().classes(f"rates-note {kind}") for kind in ("", "is-wrong")
            )
            self._mixer = BlockMixer(
                self._rates, drawn=self._drawn, selected=self._show_selection
            )
            self._mixer.on(
                "undo", lambda: self._do(lambda: self._rates.step(-1), "Undone")
            )
            self._mixer.on(
                "redo", lambda: self._do(lambda: self._rates.step(1), "Redone")
            )
            self._mixer.on("copied", lambda event: self._copied(event.args))
            with ui.element("div").classes("rates-tools"):
                self._build_tools()
        with self.footer():
            self._cost = ui.label()
            watched(self._session.changed, self._follow)

    def close(self) -> None:
        """Close it without a question, and forget what was drawn."""
        self._session.remember(_LEFT, None)
        super().close()

    def _build_tools(self) -> None:
        self._selection = (
            ui.input("Apply to", value="all").props(_LOOK).classes("rates-selection")
        )
        self._selection.on("change", self._select_written)
        self._shape = (
            ui.select(list(SHAPES), label="Shape", value="Set to")
            .props(_LOOK)
            .classes("rates-shape")
        )
        self._shape.on_value_change(self._show_parameters)
        self._parameters = ui.element("div").classes("rates-parameters")
        self._show_parameters()
        ui.button("Apply", on_click=lambda: self._do(self._draw_shape)).props(
            "no-caps unelevated"
        )
        with ui.element("div").classes("rates-more"):
            with ui.button("Templates").props("no-caps flat icon-right=expand_more"):
                self._menu = ui.menu()
                self._fill_menu()
            ui.button("Copy as JSON", on_click=self._copy).props("no-caps flat")
            ui.button("Paste", on_click=self._paste).props("no-caps flat")

    def _show_parameters(self) -> None:
        """Show the numbers and switches of the chosen shape."""
        _, numbers, switches = SHAPES[str(self._shape.value)]
        self._parameters.clear()
        with self._parameters:
            self._numbers = {
                key: ui.number(key, value=first, step=0.05).props(_LOOK)
                for key, first in numbers.items()
            }
            self._switches = {
                name: ui.checkbox(name.replace("_", " ").capitalize())
                for name in switches
            }

    def _fill_menu(self) -> None:
        """The templates, those of the user at the end."""
        entries: list[tuple[str, str, Callable[[], object]]]
        entries = [
            (title, text, partial(self._use_template, title))
            for title, (text, *_) in TEMPLATES.items()
        ]
        for name, rates in self._page.preferences.templates.items():
            use = partial(self._rates.commit, complete(rates, self._rates.layout))
            entries.append((name, "Your own", partial(self._do, use, f"{name} drawn")))
        entries.append(
            ("Save as template", "Keep these rates under a name", self._save_template)
        )
        entries.append(("Delete a template", "One of your own", self._delete_template))
        self._menu.clear()
        for title, text, action in entries:
            with (
                self._menu,
                ui.menu_item(on_click=action).props("role=menuitem"),
                ui.item_section(),
            ):
                ui.item_label(title)
                ui.item_label(text).props("caption")

    # -- changes

    def _do(self, action: Callable[[], object], said: str = "") -> None:
        """Change the rates in another way than by hand, tell of it, or say at its field what is wrong."""
        problems: dict[str, str] = {}
        try:
            result = action()
        except ConfigError as error:
            problems = {error.where: error.problem}
        else:
            self._mixer.show(said=said or str(result))
            self._drawn()
        for label, number in self._numbers.items():
            number.error = problems.pop(label, None)
        self._selection.error = next(iter(problems.values()), None)

    def _draw_shape(self) -> str:
        chosen = self._rates.select(self._selection.value)
        switches = {name: bool(box.value) for name, box in self._switches.items()}
        self._rates.draw(
            str(self._shape.value),
            chosen,
            [box.value for box in self._numbers.values()],
            **switches,
        )
        return f"{len(chosen)} blocks set" if len(chosen) > 1 else "1 block set"

    def _use_template(self, title: str) -> None:
        self._do(
            lambda: self._rates.use_template(title, self._selection.value),
            f"{title} drawn",
        )

    def _drawn(self) -> None:
        """Keep what is drawn in case the page vanishes, and show what it comes to."""
        self._session.remember(_LEFT, [self._rates.state])
        self._judge()

    def _judge(self) -> None:
        """Say what is wrong with the rates, what the optimizer refuses, what they cost."""
        wrong = self._rates.problem
        self._wrong.text = ""
        if wrong:
            self._wrong.text = (
                f"Kept as it is, and Start waits until it is right: {wrong}"
            )
        self._refusal.text = why_not_differing_rates(self._session)
        self._show_cost()

    def _show_cost(self) -> None:
        changed = self._config.model_copy(update={KEY: self._rates.values})
        try:
            self._cost.set_text(cost_text(make_plan(changed)))
            self._cost.classes(replace="")
        except BlockrateError as error:
            trains = self._rates.profile.ever_trained & set(self._rates.drawable)
            self._cost.set_text(str(error) if trains else _ALL_FROZEN)
            self._cost.classes(replace="is-wrong")

    def _follow(self) -> None:
        """Follow the config: the base rate, the optimizer, and the rates while nothing is drawn here."""
        self._config = self._session.usable
        if not self._rates.dirty and self._is_stale():
            self._rates.open(self._session.get(KEY))
        base = self._config.base_learning_rate()
        self._base.set_text(f"base {base:.2e} × fader")  # noqa: RUF001 (the sign of multiplying)
        self._mixer.show(base=base)
        self._judge()

    # -- selection, templates, copy and paste

    def _show_selection(self, names: list[str]) -> None:
        self._selection.error = None
        self._selection.value = selection_text(names, self._rates.layout) or "all"

    def _select_written(self) -> None:
        """Mark in the faders what was written; all blocks need no marks."""
        try:
            names = self._rates.select(self._selection.value)
            error = None
        except ConfigError as wrong:
            names = ()
            error = wrong.problem
        self._selection.error = error
        self._mixer.show(selected=[] if names == self._rates.layout.names else names)

    def _save_template(self) -> None:
        def save(name: str) -> None:
            if not 0 < len(name.strip()) <= _LONGEST_NAME:
                raise ConfigError("name", f"A name has 1 to {_LONGEST_NAME} letters")
            rates = sparse(self._rates.values)
            self._keep_templates(
                {**self._page.preferences.templates, name.strip(): rates}
            )

        _ask_text("Save as template", "Name", "Save", save)

    async def _delete_template(self) -> None:
        saved = self._page.preferences.templates
        gone = await ask(
            "Delete which template?",
            "It is deleted for all configs.",
            [*saved, "Cancel"],
        )
        self._keep_templates(
            {name: rates for name, rates in saved.items() if name != gone}
        )

    def _keep_templates(self, templates: dict[str, dict[str, float]]) -> None:
        self._page.preferences.templates = templates
        self._fill_menu()
        try:
            self._page.preferences.save()
        except WriteError as error:
            self._page.tell(str(error), kind="error")

    def _copy(self) -> None:
        self._mixer.run_method("copy", json.dumps(self._rates.state, indent=2))

    def _copied(self, text: object) -> None:
        """Say so; browsers keep the clipboard from pages without https, which send the text back instead."""
        if text:
            _ask_text(
                "Copy as JSON", "Press Ctrl+C", "Close", lambda _: None, str(text)
            )
        else:
            self._page.tell("Copied")

    def _paste(self) -> None:
        def paste(text: str) -> None:
            self._rates.paste(text)
            self._do(lambda: "Pasted")

        _ask_text("Paste rates", "JSON, or a number for each block", "Use", paste)

    def _offer_left(self) -> None:
        """Offer what was drawn on a page that is gone."""
        [state] = self._session.remembered(_LEFT) or [self._rates.state]
        if state != self._rates.state:
            with ui.element("div").classes("rates-note") as offer:
                ui.label("There are changes that were not taken over with OK.")
                for name, rates in {
                    "Restore": state,
                    "Discard": self._rates.state,
                }.items():
                    action = partial(
                        self._do, partial(self._rates.replace, rates), f"{name}d"
                    )
                    ui.button(name, on_click=action).on_click(offer.delete).props(
                        "no-caps flat dense"
                    )


def _ask_text(
    title: str, label: str, choice: str, take: Callable[[str], None], text: str = ""
) -> None:
    """A dialog with a text box; it stays open while ``take`` raises ``ConfigError``. A given text is marked."""

    def use() -> None:
        try:
            take(box.value or "")
        except ConfigError as error:
            box.error = error.problem
        else:
            dialog.close()

    with small_dialog(title) as dialog:
        box = ui.textarea(label, value=text).props(
            "outlined autofocus hide-bottom-space input-class=mono"
        )
        if text:
            box.on("focus", lambda: box.run_method("select"))
        choice_buttons({"Cancel": dialog.close, choice: use})
    dialog.open()


def cost_text(plan: Plan) -> str:
    """Say where training starts, and what that saves in time and memory, as ``blockrate plan`` counts it."""
    now, ones = (
        sum(vars(memory).values())
        for memory in (plan.memory_bytes, plan.memory_bytes_all_ones)
    )
    start = f"Training starts at {(plan.first_trained_block or 'the other weights').replace('_block_', ' ')}"
    time = round(100 * (1 - plan.step_cost))
    (size, unit) = (2**30, "GiB") if ones >= 2**30 else (2**20, "MiB")
    if now == ones:
        return f"{start}. A block at 0 is frozen; the first blocks save most."
    memory = f"{(ones - now) / size:.1f} {unit} less memory ({now / size:.1f} of {ones / size:.1f})"
    return f"{start}: {f'about {time} % less time a step, ' if time else ''}{memory}."


def sparkline(page: Page) -> Element:
    """The rates as small bars with a line of words: a button that opens the window, under its rule."""

    def pressed() -> None:
        if reason := why_not_block_rates(page.session):
            page.tell(reason)
        else:
            open_block_learning_rate_window(page, button)

    with (
        ui.element("button")
        .props("type=button")
        .classes("sparkline")
        .on("click", pressed, []) as button
    ):
        with ui.element("svg").props(
            "preserveAspectRatio=none aria-hidden=true"
        ) as picture:
            paths = [
                ui.element("path").classes(f"is-{kind}")
                for kind in ("double", "single", "frozen")
            ]
        words = ui.label()
    button.props["aria-label"] = "Block learning rates"
    button.props["aria-describedby"] = words.html_id

    def refresh() -> None:
        reason = why_not_block_rates(page.session)
        config = page.session.usable
        layout = (
            DEFAULT_FAMILY.spec.layout
            if reason == _NO_MODEL
            else model_spec(config).layout
        )
        draft = RatesDraft(layout, page.session.get(KEY))
        picture.props["viewBox"] = f"0 0 {10 * len(layout.names) - 3} 24"
        for path, bars in zip(paths, _bars(draft), strict=True):
            path.props["d"] = bars
        words.set_text(" · ".join(filter(None, (draft.summary(), reason))))
        button.props.set_optional("aria-disabled", "true" if reason else None)

    watched(page.session.changed, refresh)
    return button


def _bars(draft: RatesDraft) -> tuple[str, str, str]:
    """The outlines of the bars of double blocks, of single blocks, and of the marks of frozen ones."""
    values = draft.values
    never_trained = draft.profile.never_trained
    bars = []
    frozen = []
    for place, block in enumerate(draft.layout.names):
        height = 24 * values[block]
        bars.append(f"M{10 * place} 24v{-height:.2f}h7v{height:.2f}z")
        if block in never_trained:
            frozen.append(f"M{10 * place} 24v-2h7v2z")
    double = draft.layout.double
    return "".join(bars[:double]), "".join(bars[double:]), "".join(frozen)
