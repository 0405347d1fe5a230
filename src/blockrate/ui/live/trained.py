"""What is really trained: the groups of the optimizer with the rates that it holds now."""

from collections.abc import Iterable

from nicegui import Event, ui
from nicegui.elements.mixins.text_element import TextElement

from blockrate.core.blocks import OTHER, BlockLayout
from blockrate.core.schedules import warmup_length
from blockrate.core.selection import selection_text
from blockrate.run.events import Group
from blockrate.ui.live.history import TrainedBlocks
from blockrate.ui.live.watch import Watch
from blockrate.ui.parts.components import call_on_change
from blockrate.ui.parts.follow import rebuild_on_change
from blockrate.ui.parts.labels import sentence


def groups_table(watch: Watch, changed: Event[[]]) -> None:
    """A row for each group of the optimizer, and a summary above them."""
    rate_cells: dict[str, TextElement] = {}  # by group

    def fill(groups: list[Group]) -> None:
        rate_cells.clear()
        for group in groups:
            names = _in_words(group.blocks or [group.name], watch.history.blocks)
            parameters = f"{group.parameters:,}"
            multiplier = f"{group.multiplier:g}"
            cells = _row(names, parameters, multiplier, "")
            rate_cells[group.name] = cells[-1]

    def refresh() -> None:
        blocks = watch.history.blocks
        words.set_text(f"{_summary(blocks)} {_base_of_now(watch)}".rstrip())
        rates = {group.name: group.learning_rate for group in blocks.groups}
        rates.update(blocks.rates)
        for name, cell in rate_cells.items():
            rate = rates.get(name)
            cell.text = "—" if rate is None else f"{rate:.2e}"

    words = ui.label().classes("dim")
    with ui.element("div").classes("table-box") as box:
        box.props('tabindex=0 role=region aria-label="Groups of the optimizer"')
        with ui.element("table").props('aria-label="What is really trained"'):
            with ui.element("thead"):
                _row("Blocks", "Parameters", "Multiplier", "Learning rate", tag="th")
            with ui.element("tbody"):
                rebuild_on_change(changed, lambda: watch.history.blocks.groups, fill)
        call_on_change(changed, refresh)


def _base_of_now(watch: Watch) -> str:
    """Which base the rates are made of now, so that a rate can be reckoned again, and why it is not the one set."""
    config = watch.history.config
    progress = watch.history.progress
    if config is None or progress.base_rate is None or watch.history.blocks.factors:
        return ""
    base = config.base_learning_rate()
    text = (
        f"Learning rate = base times multiplier; the base is {progress.base_rate:.2e}"
    )
    warmup = warmup_length(config.learning_rate_warmup_steps, progress.total_steps)
    if progress.step < warmup:
        return f"{text} of {base:.2e}, warming up until step {warmup:,}."
    return f"{text} of {base:.2e}."


def _row(*cells: str, tag: str = "td") -> list[TextElement]:
    with ui.element("tr"):
        return [TextElement(tag=tag, text=cell) for cell in cells]


def _in_words(names: Iterable[str], blocks: TrainedBlocks) -> str:
    own_names = [name for name in blocks.names if name != OTHER]
    return selection_text(names, BlockLayout.of(own_names))


def _summary(blocks: TrainedBlocks) -> str:
    trained = blocks.trained
    frozen = set(blocks.frozen) - trained
    left_out = set(blocks.names) - trained - frozen
    number = len(trained - {OTHER})
    of = len(set(blocks.names) - {OTHER})
    parameters = sum(group.parameters for group in blocks.groups)
    sentences = [f"{number} of {of} blocks trained, {parameters:,} parameters."]
    if frozen:
        sentences.append(f"{sentence(_in_words(frozen, blocks))} frozen.")
    if left_out:
        names = sentence(_in_words(left_out, blocks))
        sentences.append(f"{names} left out by the layer filter.")
    if blocks.changed:
        sentences.append(blocks.changed)
    factors = [value for value in blocks.factors.values() if value is not None]
    if factors:
        sentences.append(
            f"Rates are those set times d, the step size found: {max(factors):.2e}."
        )
    return " ".join(sentences)
