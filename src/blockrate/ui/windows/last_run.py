"""What the last run told of every block, behind the faders of the Block Learning Rate window."""

import math

from nicegui import ui

from blockrate.core.blocks import OTHER
from blockrate.ui.live.charts import KINDS
from blockrate.ui.live.history import Row
from blockrate.ui.page import Page
from blockrate.ui.parts.components import call_on_change
from blockrate.ui.windows.block_mixer import BlockMixer
from blockrate.ui.windows.rates import RatesDraft

_NOTHING = "Nothing"
_SHOWN = ("grad_norms", "update_ratios")


class LastRun:
    """A choice of what stands behind the faders; shown where the last run was of a model with these blocks."""

    def __init__(self, page: Page, rates: RatesDraft, mixer: BlockMixer) -> None:
        self._watch = page.watch
        self._rates = rates
        self._mixer = mixer
        options = {"": _NOTHING, **{kind: KINDS[kind] for kind in _SHOWN}}
        self._choice = ui.select(options, label="Behind the faders", value="")
        self._choice.props("outlined dense hide-bottom-space").classes("rates-behind")
        self._choice.tooltip("Of the last run, by block")
        self._choice.on_value_change(self._refresh)
        call_on_change(self._watch.changed, self._refresh)

    def _refresh(self) -> None:
        self._choice.set_visibility(self._fits())
        kind = str(self._choice.value or "")
        behind = None
        if kind and self._fits():
            row = self._newest(kind)
            values = [_number(row.get(name)) for name in self._rates.names]
            behind = {"label": KINDS[kind].lower(), "values": values}
        if behind != self._mixer.props.get("behind"):
            self._mixer.show(behind=behind)

    def _fits(self) -> bool:
        """Whether the last run has told of blocks, and of none that this model has not."""
        told = set(self._watch.history.blocks.names)
        newest = any(self._newest(kind) for kind in _SHOWN)
        return newest and told <= {*self._rates.layout.names, OTHER}

    def _newest(self, kind: str) -> Row:
        rows = self._watch.history.by_block[kind].rows
        return rows[-1] if rows else {}


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
