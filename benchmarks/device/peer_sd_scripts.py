"""kohya's flux_train_network.py, unchanged, beside blockrate: their optimizer steps in turns, in one process.

    python peer_sd_scripts.py --scripts SD_SCRIPTS [--shape small|deep|full] [--modules all|attention]
        [--checkpointing] [--rounds 30] [--run ours bare-ours peer bare-peer ours-half peer-half peer-half-by-index ...]

SD_SCRIPTS is a checkout of kohya-ss/sd-scripts: library/, networks/, flux_train_network.py and train_network.py are
enough. Nothing in it is changed: from outside, what loads models is replaced by makers of random ones in its own
classes, and names that newer versions of its dependencies have dropped are put back. Every contestant is a whole
trainer in a thread of its own, stopped once a step until it is its turn again; so one turn is a whole step: data,
forward, backward, clipping, optimizer, schedule, progress bar or events. ``bare-X``: a loop without a trainer on X's
own model and adapters. ``quiet-X``: X without the peer's update_grad_norms, which it calls in every step, whether GGPO
is on or not: what it costs. Every row has its ratio, round by round, to the first of ``--run`` and to each quiet-X.

Names: ours or peer, then any of -half (the first half of the blocks has rate 0; of the peer: network_reg_lrs with 0),
-half-by-index (of the peer: train_*_block_indices instead), -fused (of the peer: torch's fused AdamW), -fp8 (of ours:
FLOAT_8, beside ``--peer-args --fp8_base``), -streamed74 (of ours: 74 % of the blocks' weights stream, as much as
``--peer-args "--blocks_to_swap 28"`` moves; both want ``--checkpointing``).
``--shape full`` is FLUX.1 with random bf16 weights and needs a GPU (without one it goes the same ways at toy width: a
rehearsal); the toys are on the CPU, in fp32 or with ``--bf16``, with equal weights in both. "Blocks run": forwards of
blocks in a step, so with checkpointing also the recomputed ones, which shows how far down the backward pass goes.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCHMARKS))

from device.setting import prepare  # noqa: E402


def main() -> None:
    """Prepare, run the rounds, and print the table."""
    begun = time.monotonic()
    options = read_options()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.shape != "full":
        os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["PYTHONWARNINGS"] = "ignore"
    warnings.filterwarnings("ignore")
    prepare(options.project, options.scripts)
    # torch comes with it, and looks at what was set
    from device.kohya.rounds import compete

    folder = Path(tempfile.mkdtemp(prefix="peer-"))
    screen = sys.stdout
    with (options.out / "talk.log").open("w", buffering=1) as talk:
        # progress bars and all else that the trainers print
        sys.stdout = sys.stderr = talk
        compete(options, folder, begun=begun, screen=screen, talk=talk)
    shutil.rmtree(folder, ignore_errors=True)
    screen.flush()
    # trainers' threads may still hold something
    os._exit(0)


def read_options() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out = Path(os.environ.get("OUT", "peer-out"))
    parser.add_argument("--scripts", type=Path, required=True)
    parser.add_argument("--project", type=Path, default=BENCHMARKS.parent)
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--shape", choices=["small", "deep", "full"], default="small")
    parser.add_argument("--modules", choices=["all", "attention"], default="all")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="the toys too")
    parser.add_argument("--pixels", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--warm", type=int, default=3, help="rounds that do not count")
    parser.add_argument(
        "--seconds", type=float, default=600, help="no new round after so long"
    )
    parser.add_argument(
        "--run", nargs="+", default=["bare-ours", "ours", "bare-peer", "peer"]
    )
    parser.add_argument(
        "--peer-args", default="", help="more for the peer, such as '--fp8_base'"
    )
    options = parser.parse_args()
    options.project = options.project.resolve()
    options.scripts = options.scripts.resolve()
    return options


if __name__ == "__main__":
    try:
        main()
    except SystemExit:
        # the screen is not where the trainers' talk goes
        sys.stderr = sys.__stderr__
        raise
