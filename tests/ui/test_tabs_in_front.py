"""What is told when another tab comes in front, without a browser."""

from collections.abc import Callable

import pytest

from blockrate.ui import shell
from blockrate.ui.page import Page


def test_a_tab_is_told_of_once_and_before_it_is_filled(
    on_a_page: Callable[[Callable[[Page], None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look(page: Page) -> None:
        order: list[str] = []
        page.tab_changed.subscribe(lambda: order.append(f"told of {page.tab}"))
        monkeypatch.setattr(
            shell, "_fill", lambda _page, name: order.append(f"filled {name}")
        )
        page.show_another("Model")
        assert order == [], "it is in front"
        page.show_another("Data")
        assert order == ["told of Data", "filled Data"]

    on_a_page(look)
