"""What weights that stream cost a step, and whether they change a bit of what is learned: on the toy of 57 blocks.

On a CPU, which copies by itself and not beside its work, so that the ratio is what hooks and copies take.
On a card: ``device/check.py --only streaming``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from common import (
    arguments,
    interleaved,
    make_toy,
    ratios,
    scratch,
    spread,
    table,
    toy_config,
)
from device.kohya.contestant import Contestant
from device.trainer import stopped_trainer

from blockrate.engine.models import common
from blockrate.engine.streaming import at_home, stream_of
from blockrate.models.families import FAMILIES
from blockrate.models.streaming import Streaming

SPEC = FAMILIES["tiny-flux1"].spec
BLOCKS = SPEC.layout.names
EARLY = BLOCKS[:28]
FROZEN = dict.fromkeys(EARLY, 0.0)
# what streams, and the multipliers
CASES: dict[str, tuple[Sequence[str], Mapping[str, float]]] = {
    "all blocks stream, all train": (BLOCKS, {}),
    "all blocks stream, the first 28 are frozen by 0.0": (BLOCKS, FROZEN),
    "only those 28 stream": (EARLY, FROZEN),
}
_HEADER = (
    "what",
    "bit for bit as resident",
    "loads a step",
    "step, of resident: wall",
    "processor",
)


def main() -> None:
    """Print the table."""
    options = arguments(__doc__, rounds=12)
    with scratch() as folder:
        make_toy(folder, spec=SPEC)
        rows = []
        for name, (streamed, multipliers) in CASES.items():
            cells = compared(folder, streamed, multipliers, options.rounds)
            rows.append([name, *cells])
        table(
            "In turns, 19 + 38 blocks of width 64, LoRA in every layer of them, fp32, checkpointing",
            _HEADER,
            rows,
        )


def compared(
    folder: Path, streamed: Sequence[str], multipliers: Mapping[str, float], rounds: int
) -> list[str]:
    """Return whether both learn the same, the loads of a step, and its ratios."""
    with ExitStack() as stack:
        resident = stack.enter_context(trainer(folder, (), multipliers))
        streams = stack.enter_context(trainer(folder, streamed, multipliers))
        cases = {"resident": resident.step, "streams": streams.step}
        times = interleaved(cases, rounds=rounds)
        resident.step()
        before = loads_of(streams)
        streams.step()
        loads = loads_of(streams) - before
        ours, theirs = times["streams"], times["resident"]
        return [
            "yes" if are_same(resident, streams) else "NO",
            str(loads),
            spread(ratios(ours.wall, theirs.wall)),
            spread(ratios(ours.processor, theirs.processor)),
        ]


@contextmanager
def trainer(
    folder: Path, streamed: Sequence[str], multipliers: Mapping[str, float]
) -> Iterator[Contestant]:
    """Give a trainer whose blocks of these names stream, whatever its config would choose."""
    run = folder / f"run-{len(list(folder.glob('run-*')))}"
    config = toy_config(
        folder,
        workspace_dir=str(run),
        output_model_destination=str(run / "lora.safetensors"),
        epochs=100_000,
        backup_after_unit="NEVER",
        layer_filter_preset="blocks",
        layer_filter="",
        block_learning_rate_multiplier=multipliers,
        transformer={"weight_dtype": "FLOAT_32", "gradient_checkpointing": True},
    )
    chosen = patch.object(common, "streaming_of", lambda *_: Streaming(tuple(streamed)))
    with chosen, stopped_trainer(run.name, config) as me:
        yield me


def loads_of(me: Contestant) -> int:
    """Return how many blocks have come so far."""
    state = me.model.state
    assert state
    stream = stream_of(state.transformer)
    assert stream
    return stream.loads


def are_same(one: Contestant, other: Contestant) -> bool:
    """Return whether two have learned the same, on the same weights, bit for bit."""
    states = one.model.state, other.model.state
    assert states[0]
    assert states[1]
    models = [state.transformer for state in states if state]
    with at_home(models[0]), at_home(models[1]):
        pairs = zip(*(model.parameters() for model in models), strict=True)
        return all(torch.equal(mine, theirs) for mine, theirs in pairs)


if __name__ == "__main__":
    main()
