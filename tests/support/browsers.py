"""Find or install the browser that the tests drive, and print its path: `python start.py test` runs this file first.

Only the standard library is imported. An empty line is printed where Playwright drives its own.
"""

import contextlib
import os
import shutil
import subprocess
import sys

NAMES = (
    "chromium",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "chrome",
    "chromium-browser",
)
# below the folders that hold programs
PLACES = {
    "darwin": (
        "Google Chrome.app/Contents/MacOS/Google Chrome",
        "Chromium.app/Contents/MacOS/Chromium",
        "Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    ),
    "win32": (
        r"Google\Chrome\Application\chrome.exe",
        r"Microsoft\Edge\Application\msedge.exe",
    ),
}


def browser() -> str:
    """The browser for the tests, installed if there is none and that may be done; empty: the one Playwright fetched."""
    found = os.environ.get("BLOCKRATE_BROWSER") or find_browser()
    if not found and install_browser():
        found = find_browser()
    if not found and not fetch_browser():
        cure = "Install Chromium, Chrome or Edge, or name one in BLOCKRATE_BROWSER, and start again."
        sys.exit(
            f"error: the tests of the app need a browser, and none was found or could be installed. {cure}"
        )
    return found


def find_browser() -> str:
    """The first Chromium, Chrome or Edge of this machine that starts; empty without one."""
    paths = [shutil.which(name) or "" for name in NAMES]
    for name in PLACES.get(sys.platform, ()):
        paths += [os.path.join(folder, name) for folder in program_folders()]
    for path in paths:
        if os.path.exists(path) and starts(path):
            return path
    return ""


def program_folders() -> list[str]:
    """The folders that hold programs on macOS and Windows."""
    if sys.platform == "darwin":
        return ["/Applications", os.path.expanduser("~/Applications")]
    names = ("ProgramFiles", "ProgramFiles(x86)", "LocalAppData")
    return [os.environ[name] for name in names if os.environ.get(name)]


def starts(path: str) -> bool:
    """Whether a browser tells its version: Ubuntu's `chromium-browser` may only say that a snap is missing."""
    # on Windows the word opens a window
    return sys.platform == "win32" or succeeds(path, "--version", seconds=30)


def install_browser() -> bool:
    """Whether Debian's package `chromium` could be installed: by root, or with a sudo that asks for no password."""
    if not shutil.which("apt-get"):
        return False
    rights = [] if os.geteuid() == 0 else ["sudo", "-n"]
    say("No Chromium, Chrome or Edge is here: trying `apt-get install chromium`")
    apt = [*rights, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]
    apt += ["-o", "DPkg::Lock::Timeout=60"]
    install = [*apt, "install", "-y", "--no-install-recommends", "chromium"]
    return succeeds(*install, seconds=300) or (
        succeeds(*apt, "update", seconds=120) and succeeds(*install, seconds=300)
    )


def fetch_browser() -> bool:
    """Whether Playwright has, or fetches within a minute, a browser of its own."""
    say("Looking for Playwright's own browser, and fetching it if the network has it")
    command = [sys.executable, "-m", "playwright", "install", "--only-shell"]
    return succeeds(*command, "chromium", seconds=60)


def succeeds(*command: str, seconds: int) -> bool:
    """Whether a command, run in silence, ends well and in time."""
    nothing = subprocess.DEVNULL
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            command, stdin=nothing, stdout=nothing, stderr=nothing, timeout=seconds
        )
        return done.returncode == 0
    return False


def say(words: str) -> None:
    """Tell what happens; stdout is for the path."""
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(browser())
