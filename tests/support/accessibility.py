"""What axe-core finds wrong with a page: WCAG 2.0 to 2.2, A and AA, and what is good practice beyond that."""

from functools import cache
from pathlib import Path

from playwright.sync_api import Page

_FILE = Path(__file__).with_name("axe") / "axe.min.js"
_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# experimental there; who speaks to the page says what they see
_MORE = {"label-content-name-mismatch": {"enabled": True}}
_OPTIONS = {
    "runOnly": {"type": "tag", "values": _TAGS},
    "rules": _MORE,
    "resultTypes": ["violations"],
    # it would ask the server for every style sheet once more
    "preload": False,
}
# what covers the page is judged by itself: the page below it was
_RUN = """async (options) => {
  const front = [...document.querySelectorAll("[role=dialog], .q-menu")].pop();
  const { violations } = await axe.run(front ?? document, options);
  if (front) {
    const only = { runOnly: { type: "rule", values: ["region"] } };
    violations.push(...(await axe.run(document, only)).violations);
  }
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 160)} ${failureSummary}`),
  );
}"""


@cache
def _source() -> str:
    return _FILE.read_text(encoding="utf-8")


def violations(page: Page, *, only: str = "") -> list[str]:
    """Return what offends a rule, of the dialog or menu in front, else of the page; ``only``: by one rule."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(_source())
    options: dict[str, object] = dict(_OPTIONS)
    if only:
        options["runOnly"] = {"type": "rule", "values": [only]}
    return [str(found) for found in page.evaluate(_RUN, options)]
