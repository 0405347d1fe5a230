"""rich's console, in which nothing that a file brings along is obeyed."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from blockrate.core.plain_text import visible


class SafeConsole(Console):
    """A console that obeys its own control codes, and writes out those in what it shows."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Yield what is shown; the console's own codes are segments of a kind of their own."""
        for text, style, control in super().render(renderable, options):
            shown = text if control else visible(text, lines="all")
            yield Segment(shown, style, control)
