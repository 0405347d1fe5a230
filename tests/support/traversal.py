"""Ways to ask for a file that is not to be had, for every place where a path or an address can be written."""

from collections.abc import Iterator
from pathlib import Path

PARTS = [
    *(
        "..",
        "%2e%2e",
        "%2E%2E",
        "%252e%252e",
        "..;",
        "%2e%2e;",
        "..%00",
        "..%5c..",
        "..\\..",
        ".%2e",
        "%2e.",
        "....",
    ),
    *(
        "%c0%ae%c0%ae",
        "%uff0e%uff0e",
        "..%c0%af..",
        "..%255c..",
        "%EF%BC%8E%EF%BC%8E",
        "..%0d%0a",
        "..%09",
        "..%20",
    ),
]
ABSOLUTE = [
    *(
        "/etc/passwd",
        "//etc/passwd",
        "%2fetc%2fpasswd",
        "%252fetc%252fpasswd",
        "/proc/self/environ",
        "/dev/zero",
    ),
    *(
        "file:///etc/passwd",
        "C:/Windows/win.ini",
        "C:%5cWindows%5cwin.ini",
        "%5c%5chost%5cshare%5cx",
        "//host/share/x",
    ),
    *(
        "CON",
        "NUL",
        "AUX.png",
        "COM1",
        "x%00.png",
        "%00",
        "/etc/passwd%00.png",
        "~",
        "~root/.ssh/id_rsa",
        ".env",
    ),
    *(
        ".git/config",
        "x.png::$DATA",
        "x.png%20",
        "x.png.",
        "*",
        "%",
        "%zz",
        "a" * 255,
        "a" * 5000,
        "%2e",
        ".",
        "./.",
    ),
    *(
        "/etc/passwd?size=1",
        "?path=/etc/passwd",
        "x?nicegui_chunk_size=-1",
        "x/",
        "x//",
        "/",
        "//",
        "///",
        "x;/../x",
    ),
]


def corpus(canary: Path) -> Iterator[str]:
    """About 120 ways to ask for a file outside: relative, absolute, encoded, odd."""
    yield from ABSOLUTE
    for part in PARTS:
        for depth in (1, 4, 12):
            yield "/".join([part] * depth) + str(canary)
            yield "%2f".join([part] * depth) + str(canary).replace("/", "%2f")
    yield from (
        str(canary),
        "/" + str(canary),
        str(canary).replace("/", "%2f"),
        str(canary).replace("/", "\\"),
    )
