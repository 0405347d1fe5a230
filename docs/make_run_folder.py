"""Writes docs/run_folder.md from the program itself: `python docs/make_run_folder.py`.

A test fails when the document is out of date.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from blockrate.config.plan import Plan, PlannedGroup
from blockrate.dataset.findings import Finding
from blockrate.dataset.report import DataReport
from blockrate.models.savings import Memory
from blockrate.run.events import ConceptLoss, Event, Group, Held, Rank

FILE = Path(__file__).with_name("run_folder.md")

INTRODUCTION = """# The run folder

<!-- Made by docs/make_run_folder.py from the docstrings of run/events.py, config/plan.py, dataset/: change those. -->

A run is a folder, the config's `workspace_dir`; `workspace/my` of `my.json`, if that leaves it open.
The engine writes into it, and everything that shows a run (the command line, the app, your own program) reads it:
nothing has to be asked of the process.
What stands here is public; a change is in the [CHANGELOG](../CHANGELOG.md).

| file | holds |
|---|---|
| `config.json` | the whole config of the last start, every default included; with the block rates that \
the run was given since |
| `config-until-step-N.json` | the config that the run had until it was given other block rates after step N |
| `options.json` | of that start: `reset_optimizer`, `extend`, `events_bytes` before it, `origin`, `data`, \
`block_rates`, `start` |
| `events.jsonl` | what happened, a JSON object a line, appended; see below |
| `log.txt`, `log.1.txt` | all that the engine and its libraries printed; the second is the older half |
| `log-1.txt`, ... | of a run on several GPUs: what the engine of each but the first printed |
| `heartbeat.json` | every second: `pid`, `create_time`, `host`, `phase`, `step`, `stopping`, `time` |
| `who.json` | who started last: `pid`, `create_time` of the process, `host`, `start` (UTC) |
| `.lock` | held by the living engine; whether a run is at work is asked of the kernel, not of a file |
| `commands/` | a file for each wish: `{"command": "stop"}`, `"save"`, `"sample"`; the engine deletes it when it \
obeys. `rates-N.json` asks for other block rates (`{"command": "rates", "block_learning_rate_multiplier": {...}}`), \
and a `rates` or `declined` event with its name is the answer |
| `checkpoints/step-00001200/` | a checkpoint after that many steps; see below |
| `samples/` | images, by prompt and step; with EMA those of the trained weights are in `samples/without-ema/` |
| `tensorboard/` | scalars and images for TensorBoard, if it is installed |
| `earlier/TIME/` | an earlier run that `--fresh` set aside, with all of these and its results in this folder |

A program that reads a run should ignore files, events and fields that it does not know: newer versions may add some.

## A checkpoint

Written to a temporary folder, synced, renamed: it is whole or it is not there.

| file | holds |
|---|---|
| `weights.safetensors` | what trains, by the name of its parameter |
| `optimizer.safetensors` | the optimizer's state, by the names of parameter and state |
| `average.safetensors` | with EMA, the average by the name of its parameter |
| `weights-2.safetensors`, ... | what of a part is beyond the first 5 GB; `optimizer` and `average` alike |
| `state.json` | `step`, `total_steps` of the schedule, `data` (fingerprint), `versions`, `optimizer`, `config` |
| `manifest.json` | size and SHA-256 of each file; written last |

## Events

Each line has `type`, `time` (UTC seconds) and `step`: how many steps are finished.
A session, which is one start of the engine, begins with `phase` (`loading`, at step 0: it looks for a checkpoint).
More phases and warnings follow, then `started`, and after it `resumed` if the session goes on from a checkpoint.
`resumed` with `from_step` 0 means that it begins again, because the session before had taken steps and saved none.
Steps after `from_step` of earlier sessions no longer count.
A session that only fills the cache (`only_cache`), or ends before the model is loaded, has no `started`.
A line torn by a kill is left out by readers; NaN and infinities are `null`.
"""

PLAN = """## `blockrate plan --json`

One object, at the largest resolution of the config.
Beside the fields below it has `data`: what the config's folders hold, or `null` for a config without concepts.
`cards` has a row for each NVIDIA card here that would be trained on, none where there is none, with `--fit` that which
was asked for: `name`, `total_bytes`, `free_bytes`, `needed_bytes` in training and `encoding_needed_bytes` while
captions are encoded (0 if that is not known), both with what torch takes beside, and as predicted `step_seconds`,
`null` for several cards and for one that nobody knows.
What has too little room stands in `warnings`.
With `--fit` it has `fit`, too: `changes` (settings by path), `needed_bytes` and `free_bytes` of the card, and
as predicted `step_seconds` and `slow_down`, which is that time relative to one of the config as it was.
The exit code is that which `train` would end with on the same data.
"""

METADATA = """## File metadata

What blockrate writes into the header of a LoRA file, and of a fine-tune's files:

| key | holds |
|---|---|
| `format` | `pt`, as readers of safetensors files expect |
| `blockrate.multipliers` | the config's `block_learning_rate_multiplier`, as JSON; a missing block had 1.0 |
| `blockrate.base_model` | the config's `base_model_name` |
| `blockrate.config_hash` | 16 hexadecimal digits that tell configs apart, the same as in the event `started` |
| `blockrate.version` | the version that wrote it |

Where sizes do not tell a model from another one, `blockrate.model_variant` says which it is: `BASE` or `DISTILLED`,
`DEV` or `KONTEXT`.
The single file of a fine-tune also has the `modelspec` words of the next table.

A LoRA file in the diffusers form has no more: its scale, alpha divided by rank, is multiplied into `lora_B`.
One in the kohya form also has what sd-scripts and model browsers expect:

| key | holds |
|---|---|
| `ss_network_module` | `networks.lora_flux` |
| `ss_network_dim`, `ss_network_alpha` | rank and alpha as trained; `Dynamic` if modules differ |
| `ss_base_model_version` | `flux1` |
| `modelspec.sai_model_spec` | the version of that specification, `1.0.0` |
| `modelspec.architecture` | the variant of the model, `flux-1-dev/lora` for example |
| `modelspec.implementation` | where the model's own code is |
| `modelspec.title` | the file's name without `.safetensors` |
"""


def document() -> str:
    """Return the text of docs/run_folder.md."""
    lines = [INTRODUCTION]
    for event in get_args(Event):
        lines += _described(event, f"### `{event.__name__.lower()}`")
    lines += _described(Group, "### A group of `started`")
    lines += _described(Rank, "### A rank of `started`")
    lines += _described(Held, "### A rank of `memory`")
    lines += _described(ConceptLoss, "### A concept of `validated`")
    lines += [PLAN, *_rows(Plan)]
    lines += _described(PlannedGroup, "### A group of the plan")
    lines += _described(Memory, "### Memory")
    lines += _described(DataReport, "### The data")
    lines += _described(Finding, "### A finding of the data")
    lines.append(METADATA)
    return "\n".join(lines).rstrip() + "\n"


def _described(kind: type[Any], heading: str) -> Iterator[str]:
    yield heading
    yield ""
    yield from _words(kind)
    yield from _rows(kind)


def _words(kind: type[Any]) -> Iterator[str]:
    for line in (kind.__doc__ or "").strip().splitlines():
        yield line.strip().replace("``", "`")
    yield ""


def _rows(kind: type[Any]) -> Iterator[str]:
    hints = get_type_hints(kind)
    rows = [
        (f"`{one.name}`", _type(hints[one.name]), _default(one)) for one in fields(kind)
    ]
    if rows:
        yield from _table(("field", "type", "if it is missing"), rows)


def _type(hint: Any) -> str:
    """The type as JSON has it."""
    if hint in _NAMES:
        return _NAMES[hint]
    parts = [part for part in get_args(hint) if part is not type(None)]
    optional = " or null" if len(parts) < len(get_args(hint)) else ""
    origin = getattr(hint, "__origin__", None)
    name = getattr(origin, "__name__", "")
    if name in ("Sequence", "tuple"):
        items = [part for part in parts if part is not Ellipsis]
        return f"list of {_type(items[0])}"
    if name == "Mapping":
        return f"object: {_type(parts[0])} to {_type(parts[1])}"
    if name == "Literal":
        return ", ".join(f'`"{part}"`' for part in parts)
    if parts:
        names = dict.fromkeys(_type(part) for part in parts)
        return " or ".join(names) + optional
    return f"{hint.__name__} (below)"


_NAMES: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "text",
}


def _default(one: "Field[Any]") -> str:
    if one.default is not MISSING:
        return {None: "null", "": "empty", (): "empty"}.get(
            one.default, f"{one.default}"
        )
    return "empty" if one.default_factory is not MISSING else "always there"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
