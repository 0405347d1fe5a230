"""What a check has found: printed and written as soon as it is known, and a table at the end."""

import json
import time
from pathlib import Path
from typing import Any

Row = dict[str, Any]
COLUMNS = {
    "what": "what",
    "px": "px",
    "s/step": "s/step",
    "s predicted": "s predicted",
    "% of matmul rate": "% of matmul",
    "% idle": "% idle",
    "peak GiB": "peak GiB",
    "reserved GiB": "reserved GiB",
    "predicted GiB": "predicted GiB",
    "cost measured": "cost",
    "cost predicted": "cost predicted",
    "of bare loop": "of bare",
    "of bare loop, our adapters": "of bare, our adapters",
    "loads/step": "loads/step",
    "of resident": "of resident",
    "of resident predicted": "of resident predicted",
    "note": "note",
}


class Report:
    """Rows by their kind, in a folder, and the time that is left for more of them."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds
        self.begun = time.monotonic()
        self.found: dict[str, list[Row]] = {
            "facts": [],
            "rows": [],
            "cures": [],
            "tests": [],
        }
        self.left_out: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)

    def passed(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self.begun

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.seconds - self.passed()

    def has_time(self, name: str, seconds: float) -> bool:
        """Tell whether there is so much time left; if not, the report says what was left out."""
        if self.left() >= seconds:
            return True
        self.leave_out(name, "for lack of time")
        return False

    def leave_out(self, name: str, why: str) -> None:
        """Note what was not run."""
        self.left_out.append(f"{name}: {why}")
        self._write()
        print(f"left out: {name}: {why}", flush=True)

    def say(self, kind: str, row: Row) -> None:
        """Add a row."""
        self.found[kind].append(row)
        self._write()
        told = "  ".join(f"{key}={value}" for key, value in row.items())
        print(f"[{self.passed():5.0f} s] {kind}: {told}", flush=True)

    def print_tables(self) -> None:
        """Print what a README can take over, the tests, and what was left out."""
        print()
        print(" | ".join(["", *COLUMNS.values(), ""]).strip())
        print("|" + "---|" * len(COLUMNS))
        for row in [*self.found["rows"], *self.found["cures"]]:
            # what is not known of a row is no figure of it
            told = {key: value for key, value in row.items() if value is not None}
            cells = [str(told.get(key, "")) for key in COLUMNS]
            print(" | ".join(["", *cells, ""]).strip())
        for row in self.found["tests"]:
            print(row)
        print(f"left out: {self.left_out}  {self.passed():.0f} s in all", flush=True)

    def _write(self) -> None:
        report = {**self.found, "left_out": self.left_out}
        text = json.dumps(report, indent=1)
        (self.folder / "report.json").write_text(text, encoding="utf-8")
