"""One run on a GPU machine: FLUX.1 at full size with random weights, and the tests that need a GPU.

    python benchmarks/device/check.py --out FOLDER --seconds 330
        [--only rows,streaming,tests,peer,cures,suite,compile,short]

The parts run in the order of ``--only``, and what is in them in the order of its worth; whatever would not fit into
what is left of ``--seconds`` is left out and said so. Each row is printed and written (report.json) when it is done, so
a cut run keeps what it has. Nothing is downloaded. Without a GPU it does the same at toy width, to show that it runs.
"""

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCHMARKS))

from device.report import Report  # noqa: E402
from device.setting import prepare  # noqa: E402

PARTS = ("rows", "streaming", "tests", "peer", "cures", "suite", "compile", "short")
USUAL = "rows,streaming,tests,peer,cures"
SCRIPT = "train_dreambooth_lora_flux.py"


def main(only: str = USUAL) -> None:
    """Run the parts that are asked for, ``only`` if nothing is said, one after the other, and print the table."""
    options = read_options(only)
    report = Report(options.out, options.seconds)
    prepare(options.project)
    # torch comes with them, and looks at what prepare sets
    from device.card import facts
    from device.shared import Check, scale_of_check

    scale = scale_of_check()
    rate = facts(report, scale)
    # libraries chat about random weights and toy sizes
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        check = Check(
            project=options.project,
            script=options.script or options.project.parent / "peers" / SCRIPT,
            report=report,
            scratch=Path(scratch),
            scale=scale,
            matmul_rate=rate,
            steps=options.steps,
            rounds=options.rounds,
        )
        parts = runners()
        for name in options.only:
            parts[name](check)
    report.print_tables()


def runners() -> dict[str, Callable[..., None]]:
    """Return what runs each of the parts."""
    from device import cures, diffusers_script, lives, rows, suite

    return {
        "rows": rows.measure_rows,
        "streaming": rows.measure_streamed,
        "tests": lives.run_lives,
        "peer": diffusers_script.measure_peer,
        "cures": cures.measure_cures,
        "suite": suite.run_suite,
        "compile": cures.measure_compiled,
        "short": rows.measure_short,
    }


def read_options(only: str = USUAL) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    here = BENCHMARKS.parent
    out = Path(os.environ.get("OUT", "."))
    parser.add_argument("--project", type=Path, default=here, help="with src, examples")
    parser.add_argument("--out", type=Path, default=out, help="where the report goes")
    parser.add_argument("--seconds", type=float, default=330)
    parser.add_argument("--only", type=parts_of, default=parts_of(only))
    parser.add_argument("--steps", type=int, default=3, help="timed in one go")
    parser.add_argument(
        "--rounds", type=int, default=1, help="of ours and the bare loops, in turns"
    )
    parser.add_argument("--script", type=Path, help=f"diffusers' {SCRIPT}")
    options = parser.parse_args()
    options.project = options.project.resolve()
    options.out = options.out.resolve()
    return options


def parts_of(text: str) -> list[str]:
    """Return the parts in a list with commas, in its order."""
    names = text.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        told = f"{', '.join(unknown)}: there is only {', '.join(PARTS)}"
        raise argparse.ArgumentTypeError(told)
    return names


if __name__ == "__main__":
    main()
