"""Types of the fixtures that start apps and open their pages."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from support.apps import App

if TYPE_CHECKING:
    from playwright.sync_api import Page

StartApp = Callable[..., App]
OpenPage = Callable[..., "Page"]
OpenConfig = Callable[[object], App]
