"""The browser of the tests: found, or installed, or asked for in one sentence."""

import os
import sys
from pathlib import Path

import pytest
from support import browsers

INSTALL = browsers.install_browser


def program(folder: Path, name: str, code: int) -> Path:
    """A program on PATH that ends with this code."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\nexit {code}\n")
    (folder / name).chmod(0o755)
    return folder / name


@pytest.fixture
def no_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, and neither apt nor Playwright can help."""
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    monkeypatch.delenv("BLOCKRATE_BROWSER", raising=False)
    monkeypatch.setattr(browsers, "install_browser", lambda: False)
    monkeypatch.setattr(browsers, "fetch_browser", lambda: False)
    return tmp_path / "programs"


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere browsers are not found by PATH alone"
)
def test_the_first_browser_that_starts_is_taken(no_browser: Path) -> None:
    program(no_browser, "chromium", 1)  # as Ubuntu's does without its snap
    chrome = program(no_browser, "google-chrome", 0)
    program(no_browser, "microsoft-edge", 0)
    assert browsers.browser() == str(chrome)


@pytest.mark.parametrize(
    ("system", "place"),
    [
        ("darwin", "Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
        ("win32", r"Microsoft\Edge\Application\msedge.exe"),
    ],
)
def test_browsers_are_found_where_other_systems_keep_programs(
    system: str,
    place: str,
    no_browser: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ProgramFiles(x86)", str(tmp_path))
    monkeypatch.setattr(browsers, "starts", lambda path: True)
    found = tmp_path / place
    found.parent.mkdir(parents=True, exist_ok=True)
    found.touch()
    assert browsers.browser() == str(found)


def test_the_users_own_browser_is_not_searched_for(
    no_browser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKRATE_BROWSER", "/opt/brave")
    assert browsers.browser() == "/opt/brave"


def test_without_a_browser_debians_is_installed_and_else_playwrights_fetched(
    no_browser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsers, "fetch_browser", lambda: True)
    assert browsers.browser() == ""
    monkeypatch.setattr(
        browsers, "install_browser", lambda: bool(program(no_browser, "chromium", 0))
    )
    assert browsers.browser() == str(no_browser / "chromium")


def test_without_any_browser_one_sentence_says_what_to_install(
    no_browser: Path,
) -> None:
    with pytest.raises(
        SystemExit,
        match=r"^error: the tests of the app need a browser.* Install Chromium, Chrome",
    ):
        browsers.browser()


@pytest.mark.skipif(sys.platform == "win32", reason="has no apt and no users by number")
def test_apt_is_asked_only_by_root_or_a_sudo_without_a_password(
    no_browser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def succeeds(*command: str, seconds: int) -> bool:
        asked.append(command)
        return len(asked) > 1

    monkeypatch.setattr(browsers, "succeeds", succeeds)
    assert INSTALL() is False  # no apt-get here
    program(no_browser, "apt-get", 0)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert INSTALL() is True  # the package lists had to be fetched first
    assert [command[:2] for command in asked] == [("sudo", "-n")] * 3
    assert ["install" in command for command in asked] == [True, False, True]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    INSTALL()
    assert "sudo" not in asked[-1]


def test_a_command_that_hangs_or_is_missing_did_not_succeed() -> None:
    assert browsers.succeeds(sys.executable, "-c", "pass", seconds=60) is True
    assert (
        browsers.succeeds(
            sys.executable, "-c", "input(); raise SystemExit(3)", seconds=60
        )
        is False
    )
    assert (
        browsers.succeeds(
            sys.executable, "-c", "import time; time.sleep(60)", seconds=0
        )
        is False
    )
    assert browsers.succeeds("no-such-program-anywhere", seconds=60) is False
