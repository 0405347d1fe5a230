"""What a page must be for everybody, judged from what the browser has rendered: each answer lists the offences."""

from pathlib import Path

from playwright.sync_api import Page

# Roles that are nothing without a name.
NAMED = {
    "button",
    "link",
    "textbox",
    "searchbox",
    "combobox",
    "checkbox",
    "switch",
    "radio",
    "slider",
    "spinbutton",
}
NAMED |= {
    "tab",
    "option",
    "menuitem",
    "dialog",
    "alertdialog",
    "image",
    "progressbar",
    "group",
    "radiogroup",
    "table",
}


def nameless(page: Page) -> list[str]:
    """Controls, pictures and groups of the accessibility tree without a name."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")
    return [
        f"{node['role']['value']} {node.get('description', {}).get('value', '')} {node.get('backendDOMNodeId')}"
        for node in tree["nodes"]
        if not node["ignored"]
        and node["role"]["value"] in NAMED
        and not node["name"]["value"].strip()
    ]


def sideways(page: Page) -> list[str]:
    """What does not fit the width: the page itself, and controls beyond its edges."""
    return _judge(page, "sideways")


def faint(page: Page) -> list[str]:
    """Texts below WCAG's contrast AA (4.5; 3 for large text and icons); what is disabled may be faint."""
    return _judge(page, "faint")


def small_targets(page: Page) -> list[str]:
    """Controls that a finger misses: less than 44 px wide or high. Faders have a larger bar below them."""
    return _judge(page, "small")


def _judge(page: Page, what: str) -> list[str]:
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    judges = script.rstrip().removesuffix(";")
    return list(page.evaluate(f"{judges}.{what}()"))
