"""One run on a GPU machine: FLUX.1 at full size with random weights, then the tests that need a GPU. Nothing is downloaded.

    python3 .device/check.py --project .device/project --out $OUT --seconds 330 [--only rows,cures,tests,suite,peer,compile]

Rows come in the order of their worth; one that would not fit into what is left of --seconds is left out and said so. Each
row is printed and written (report.json) when it is done, so a cut run keeps what it has. Without a GPU it does the same at
toy width: that shows that it runs.
"""

import argparse
import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

BEGUN = time.monotonic()
options = argparse.ArgumentParser()
options.add_argument("--project", type=Path, default=Path("."))
options.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
options.add_argument("--seconds", type=float, default=330)
options.add_argument("--only", default="rows,cures,tests,peer")
options.add_argument(
    "--steps", type=int, default=3, help="steps between two waits for the GPU"
)
options.add_argument(
    "--peer-run", nargs=2, metavar=("SCRIPT", "NOTES"), help="used by itself"
)
options.add_argument("--peer-size", type=int, default=512)
OPT = options.parse_args()
PROJECT = OPT.project.resolve()
SITE = [str(PROJECT / "src"), str(PROJECT / "benchmarks")]
sys.path[:0] = SITE
os.environ["PYTHONPATH"] = os.pathsep.join(
    [*SITE, *filter(None, [os.environ.get("PYTHONPATH")])]
)
os.environ.update(
    HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false"
)
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

import torch  # noqa: E402
from torch import nn  # noqa: E402

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
GIB = 2**30
TEXT = 512 if CUDA else 8
SIZES = (512, 1024) if CUDA else (32, 64)
ATTENTION = "attn.to_q,attn.to_k,attn.to_v,attn.to_out.0"
REPORT: dict[str, list] = {
    "facts": [],
    "rows": [],
    "cures": [],
    "tests": [],
    "left_out": [],
}


def left() -> float:
    return OPT.seconds - (time.monotonic() - BEGUN)


def say(kind: str, row: dict) -> None:
    REPORT[kind].append(row)
    OPT.out.mkdir(parents=True, exist_ok=True)
    (OPT.out / "report.json").write_text(json.dumps(REPORT, indent=1))
    print(
        f"[{time.monotonic() - BEGUN:5.0f} s] {kind}: "
        + "  ".join(f"{key}={value}" for key, value in row.items()),
        flush=True,
    )


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def clear() -> None:
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()


# --- what the card can do ---


def seconds_of(work, times: int, warm: int = 3) -> float:
    for _ in range(warm):
        work()
    wait()
    begun = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return (time.perf_counter() - begun) / times


def facts() -> float:
    """Say what the machine is, and return its matmul rate in FLOP/s."""
    import accelerate
    import diffusers
    import peft
    import transformers

    card = torch.cuda.get_device_properties(0) if CUDA else None
    versions = {
        module.__name__: module.__version__
        for module in (torch, diffusers, transformers, peft, accelerate)
    }
    say(
        "facts",
        {
            "card": card.name if card else "no GPU",
            "GiB": round(card.total_memory / GIB, 1) if card else 0,
            **versions,
        },
    )
    side = 8192 if CUDA else 256
    a, b = (
        torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2)
    )
    rate = 2 * side**3 / seconds_of(lambda: a @ b, 10)
    tall, wide = (
        torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16)
        for shape in ((SIZES[0] ** 2 // 256 + TEXT, 3072), (3072, 12288))
    )
    flux = 2 * tall.shape[0] * 3072 * 12288 / seconds_of(lambda: tall @ wide, 10)
    bulk = torch.empty((GIB if CUDA else 2**22), device=DEVICE, dtype=torch.uint8)
    copy = 2 * bulk.numel() / seconds_of(lambda: bulk.clone(), 5)
    host = {}
    if CUDA:
        plain = torch.ones(GIB // 4, dtype=torch.uint8)
        pinned = plain.pin_memory()
        host = {
            name: round(
                plain.numel()
                / seconds_of(
                    lambda: bulk[: len(source)].copy_(source, non_blocking=True), 5
                )
                / 1e9,
                1,
            )
            for name, source in (
                ("H2D pageable GB/s", plain),
                ("H2D pinned GB/s", pinned),
            )
        }
    say(
        "facts",
        {
            "matmul TFLOP/s": round(rate / 1e12, 1),
            "matmul of FLUX.1's MLP at the first size": round(flux / 1e12, 1),
            "copy GB/s": round(copy / 1e9),
            **host,
        },
    )
    return rate


# --- full size ---


def spec():
    from blockrate.core.families import FAMILIES

    return FAMILIES["flux1-dev" if CUDA else "tiny-flux1"].spec


MASTER: dict[
    str, torch.Tensor
] = {}  # the base weights in bf16, shared by all rows that leave them as they are


def random_base(keep: bool):
    """A FluxTransformer2DModel of random bf16 weights on the device. ``keep``: share them with the next one."""
    from blockrate.engine.models.tiny import random_transformer

    with torch.device("meta"):
        model = random_transformer(spec())
    for name, parameter in list(model.named_parameters()):
        values = MASTER.get(name)
        if values is None:
            values = torch.empty(parameter.shape, dtype=torch.bfloat16, device=DEVICE)
            values.normal_(0, 0.02) if values.ndim > 1 else values.fill_(
                0.0 if name.endswith("bias") else 1.0
            )
            if keep:
                MASTER[name] = values
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner)._parameters[leaf] = nn.Parameter(
            values, requires_grad=False
        )
    return model


def make(changes: dict, size: int):
    """Config, trainee and plan of a row: everything but the weights by the trainer's own code."""
    from unittest.mock import patch

    from blockrate.config.plan import make_plan
    from blockrate.config.train_config import TrainConfig
    from blockrate.engine.models.flux1 import ModelFiles
    from blockrate.engine.trainee import make_trainee
    from diffusers import FluxTransformer2DModel

    values = {
        "lora_alpha": 16.0,
        "text_encoder_2_sequence_length": TEXT,
        "resolution": str(size),
        "aspect_ratio_bucketing": False,
    }
    values["base_model_name"] = "black-forest-labs/FLUX.1-dev" if CUDA else "tiny-flux1"
    config = TrainConfig.model_validate(values | changes)
    form = config.transformer.weight_dtype
    keep = config.training_method == "LORA" and form == "BFLOAT_16"
    if not keep:
        MASTER.clear()
    clear()
    with patch.object(
        FluxTransformer2DModel, "from_pretrained", lambda *_, **__: random_base(keep)
    ):
        trainee = make_trainee(
            ModelFiles(*[Path("random weights")] * 5, spec()), config, DEVICE
        )
    return config, trainee, make_plan(config)


def batch_of(size: int, count: int = 1, text: int = TEXT):
    """What the cache would give: bf16 embeddings, fp32 latents, on the CPU."""
    from blockrate.engine.data.cache import Batch

    s = spec()
    return Batch(
        torch.randn(count, s.in_channels // 4, size // 8, size // 8),
        torch.randn(count, text, s.joint_attention_dim).bfloat16(),
        torch.randn(count, s.pooled_projection_dim).bfloat16(),
        torch.ones(count),
        ("random",) * count,
    )


def predicted(config, size: int, count: int, text: int = TEXT):
    """Bytes by the plan's own arithmetic for exactly these tokens, and FLOPs of a step: of this row, and of all ones."""
    from blockrate.config.optimizers import OPTIMIZERS
    from blockrate.config.plan import _allowed_modules
    from blockrate.core.blocks import OTHER
    from blockrate.core.multipliers import complete
    from blockrate.core.savings import Work, memory, step_flops

    s = spec()
    rates = complete(config.block_learning_rate_multiplier, s.layout)
    allowed = _allowed_modules(config, s)
    trained = [
        name for name, module in allowed.items() if rates[module.block or OTHER] > 0
    ]
    lora = config.training_method == "LORA"
    work = Work(
        (size // 16) ** 2,
        text,
        count,
        config.lora_rank if lora else None,
        config.transformer.gradient_checkpointing,
    )
    row = OPTIMIZERS[config.optimizer.optimizer]
    state = row.state_bytes_for(config.optimizer, config.trained_dtype())
    sizes = memory(
        s,
        trained,
        work,
        weight_dtype=config.transformer.weight_dtype,
        trained_dtype=config.trained_dtype(),
        state_bytes=state,
    )
    total = sizes.weights + sizes.gradients + sizes.optimizer + sizes.activations
    return total, step_flops(s, trained, work), step_flops(s, list(allowed), work)


BASE: dict[
    tuple, float
] = {}  # seconds of a step with everything trained, by size and what else is the same


def measure(
    kind: str,
    name: str,
    rate: float,
    changes: dict,
    *,
    sizes=SIZES,
    cost: float = 20,
    count: int = 1,
    bare: bool = False,
    group: str = "",
    change=None,
) -> None:
    """One row for each size. ``cost``: the seconds it may take. ``change``: is given the trainee, to try a cure."""
    if left() < cost:
        REPORT["left_out"].append(name)
        print(f"left out for lack of time: {name}", flush=True)
        return
    trainee = None
    try:
        began = time.perf_counter()
        config, trainee, plan = make(changes, sizes[0])
        if change:
            change(trainee)
        loading = time.perf_counter() - began
        for size in sizes:
            say(
                kind,
                {
                    "what": name,
                    "px": size,
                    **figures(trainee, config, plan, size, count, rate, bare, group),
                    "load s": round(loading, 1),
                },
            )
    except Exception as error:  # the next row may do
        full = type(error).__name__ == "OutOfMemoryError"
        say(
            kind,
            {
                "what": name,
                "failed": "out of memory"
                if full
                else f"{type(error).__name__}: {str(error)[:300]}",
            },
        )
        if not full:
            traceback.print_exc()
    finally:
        del trainee
        clear()


def figures(
    trainee, config, plan, size: int, count: int, rate: float, bare: bool, group: str
) -> dict:
    from blockrate.engine.steps import take_step

    batch = batch_of(size, count)
    losses: list[float] = []

    def ours() -> None:
        losses.append(
            take_step(trainee, [batch], config, step=len(losses), telemetry=None).loss
        )

    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    ours()
    ours()
    wait()
    shared = (
        sum(t.nbytes for t in MASTER.values())
        - sum(
            p.nbytes
            for n, p in trainee.transformer.named_parameters()
            if ".lora_" not in n
        )
        if MASTER
        else 0
    )
    peak = torch.cuda.max_memory_allocated() - max(0, shared) if CUDA else 0
    reserved = torch.cuda.max_memory_reserved() if CUDA else 0
    step = seconds_of(ours, OPT.steps, warm=0)
    beside = {}
    if bare:
        from bare_loop import bare_loop

        beside = {
            "of bare loop": round(
                step
                / seconds_of(
                    bare_loop(trainee, batch, trainee.optimizer), OPT.steps, warm=1
                ),
                3,
            )
        }
    total, flops, ones = predicted(config, size, count)
    key = (size, count, group)
    BASE.setdefault(key, step)
    assert all(loss == loss for loss in losses), f"the loss is not a number: {losses}"
    return {
        "s/step": round(step, 3),
        "steps/s": round(1 / step, 2),
        "TFLOP/step": round(flops / 1e12, 1),
        "% of matmul rate": round(100 * flops / step / rate, 1),
        "peak GiB": round(peak / GIB, 2),
        "reserved GiB": round(reserved / GIB, 2),
        "predicted GiB": round(total / GIB, 2),
        "cost measured": round(step / BASE[key], 3),
        "cost predicted": round(flops / ones, 3),
        "plan": round(plan.step_cost, 3),
        **beside,
    }


def profiles() -> dict[str, dict]:
    names = spec().layout.names
    half = names[: len(names) // 2]
    four = {f"single_block_{index}" for index in (7, 12, 16, 20)}
    return {
        "all blocks": {},
        "decay": {
            name: round(0.95 ** (len(names) - 1 - index), 4)
            for index, name in enumerate(names)
        },
        "first half frozen": {**dict.fromkeys(half, 0.0), "other": 0.0},
        "singles 7, 12, 16, 20": {
            name: float(name in four) for name in (*names, "other")
        },
    }


def rows(rate: float) -> None:
    rates = profiles()
    key = "block_learning_rate_multiplier"
    for name, profile in rates.items():
        measure(
            "rows",
            f"LoRA 16 bf16, {name}",
            rate,
            {key: profile},
            bare=name == "all blocks",
            cost=25,
            group="lora",
        )
    measure(
        "rows",
        "LoRA 16 bf16, attention only, all blocks",
        rate,
        {"layer_filter": ATTENTION},
        cost=20,
        group="attention",
    )
    small = 32 if CUDA else 16
    measure(
        "rows",
        "launch floor: as the first, next to no tokens",
        rate,
        {},
        sizes=(small,),
        cost=10,
        group="floor",
    )
    measure(
        "rows",
        "LoRA 16 fp8, all blocks",
        rate,
        {"transformer": {"weight_dtype": "FLOAT_8"}},
        cost=25,
        group="fp8",
    )
    measure(
        "rows",
        "LoRA 16 nf4, all blocks",
        rate,
        {"transformer": {"weight_dtype": "NFLOAT_4"}},
        cost=30,
        group="nf4",
    )
    fine = {
        "training_method": "FINE_TUNE",
        "output_model_format": "DIFFUSERS",
        "output_model_destination": "fine",
    }
    last = SIZES[:1]
    rounding = {"optimizer": {"optimizer": "ADAMW", "stochastic_rounding": True}}
    measure(
        "rows",
        "fine-tune, first half frozen, AdamW with stochastic rounding",
        rate,
        {**fine, **rounding, key: rates["first half frozen"]},
        sizes=last,
        cost=25,
        group="fine",
    )
    measure(
        "rows",
        "fine-tune, all, Adafactor",
        rate,
        {**fine, "optimizer": {"optimizer": "ADAFACTOR", "relative_step": False}},
        sizes=last,
        cost=25,
        group="fine all",
    )
    measure(
        "rows",
        "fine-tune, all, AdamW 8 bit",
        rate,
        {**fine, "optimizer": {"optimizer": "ADAMW_8BIT"}},
        sizes=last,
        cost=25,
        group="fine 8",
    )


def cures(rate: float) -> None:
    """What the review proposes, each against the first row. BASE holds that row's time, so 'cost measured' is the gain."""
    from peft.tuners.lora import LoraLayer

    def no_cast(trainee) -> None:
        for module in trainee.transformer.modules():
            if isinstance(module, LoraLayer):
                module.cast_input_dtype_enabled = False

    changed = []

    def cudnn(trainee) -> None:
        trainee.transformer.set_attention_backend("_native_cudnn")
        changed.append(trainee.transformer)

    bf16 = {
        "train_dtype": "FLOAT_32",
        "lora_weight_dtype": "BFLOAT_16",
    }  # FLOAT_32 here means: no autocast
    measure(
        "cures",
        "no cast of inputs to fp32 for adapters",
        rate,
        {},
        cost=20,
        group="lora",
        change=no_cast,
    )
    measure("cures", "no autocast, adapters in bf16", rate, bf16, cost=20, group="lora")
    measure(
        "cures",
        "no checkpointing",
        rate,
        {"transformer": {"gradient_checkpointing": False}},
        sizes=SIZES[:1],
        cost=15,
        group="lora",
    )
    measure(
        "cures", "batch 4", rate, {}, sizes=SIZES[:1], cost=20, count=4, group="four"
    )
    measure(
        "cures", "attention by cuDNN", rate, {}, cost=20, group="lora", change=cudnn
    )  # diffusers keeps it for every later model
    while changed:
        changed.pop().set_attention_backend("native")
    clear()


def compiled(rate: float) -> None:
    """Alone, and last: compiling takes its time."""
    measure(
        "cures",
        "compile",
        rate,
        {"compile": True},
        sizes=SIZES[:1],
        cost=60,
        group="lora",
    )


# --- the tests that need a GPU ---


def life_config(folder: Path, name: str, **changes) -> Path:
    """A bf16 run of the toy on the shipped photographs: checkpoints, samples, validation, telemetry, bit-exact."""
    values = json.loads((PROJECT / "examples" / "demo.json").read_text())
    values |= {
        "workspace_dir": str(folder / name), "cache_dir": str(folder / "cache"),
        "output_model_destination": str(folder / name / "lora.safetensors"), "deterministic": True, "seed": 7,
        "train_dtype": "BFLOAT_16", "epochs": 5, "batch_size": 2, "backup_after": 8, "telemetry_every": 5, "ema": "GPU",
        "sample_after": 20, "validate_after": 20, "tensorboard": False, "resolution": "64",
        "transformer": {"weight_dtype": "BFLOAT_16", "gradient_checkpointing": True},
    } | changes  # fmt: skip
    for sample in values["samples"]:
        sample.update(width=64, height=64, diffusion_steps=4)
    for concept in values["concepts"]:
        concept["path"] = str(PROJECT / "examples" / "photos")
    path = folder / f"{name}.json"
    path.write_text(json.dumps(values))
    return path


STARTED: list[subprocess.Popen] = []


def train(config: Path) -> subprocess.Popen:
    log = (OPT.out / f"{config.stem}.log").open("wb")
    command = [sys.executable, "-m", "blockrate", "train", str(config)]
    STARTED.append(
        subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    )
    return STARTED[-1]


def events(run: Path) -> list[dict]:
    file = run / "events.jsonl"
    return (
        [
            json.loads(line)
            for line in file.read_text().splitlines()
            if line.endswith("}")
        ]
        if file.exists()
        else []
    )


def tests() -> None:
    """Kill -9 after a checkpoint, resume, and compare with an unbroken run, bit for bit; then fp8 and nf4 end to end."""
    if left() < 60:
        REPORT["left_out"].append("tests")
        return
    import tempfile

    folder = Path(tempfile.mkdtemp())
    try:
        warm = train(life_config(folder, "cached", only_cache=True))
        say("tests", {"what": "encode and cache", "exit code": warm.wait(120)})
        whole, broken = (
            train(life_config(folder, name)) for name in ("whole", "broken")
        )
        run = folder / "broken"
        saved = 0
        while broken.poll() is None and not saved:
            saved = max(
                (
                    event["step"]
                    for event in events(run)
                    if event["type"] == "saved" and event.get("kind") == "checkpoint"
                ),
                default=0,
            )
            time.sleep(0.02)
        engine = (
            json.loads((run / "who.json").read_text())["pid"]
            if (run / "who.json").exists()
            else broken.pid
        )
        os.kill(engine, signal.SIGKILL)
        say(
            "tests",
            {
                "what": "kill -9 after a checkpoint",
                "at step": saved,
                "exit code": broken.wait(60),
            },
        )
        again = train(folder / "broken.json")
        patience = max(30, left() - 20)
        codes = again.wait(patience), whole.wait(patience)
        files = [folder / name / "lora.safetensors" for name in ("whole", "broken")]
        same = all(file.exists() for file in files) and tensors_equal(*files)
        losses = [
            {
                event["step"]: event["loss"]
                for event in events(folder / name)
                if event["type"] == "step"
            }
            for name in ("whole", "broken")
        ]
        apart = [step for step in losses[0] if losses[1].get(step) != losses[0][step]]
        say(
            "tests",
            {
                "what": "killed and resumed = unbroken",
                "exit codes": codes,
                "bit for bit": same,
                "steps": len(losses[0]),
                "steps whose loss differs": len(apart),
                "first": apart[:1],
                "device": device_of(folder / "whole"),
            },
        )
        say(
            "tests",
            {
                "what": "files of the run",
                "samples": len(list((folder / "whole").rglob("*.png"))),
                "events": sorted({event["type"] for event in events(folder / "whole")}),
            },
        )
        forms = {
            form: train(
                life_config(
                    folder,
                    form,
                    epochs=4,
                    transformer={"weight_dtype": form, "gradient_checkpointing": True},
                )
            )
            for form in ("FLOAT_8", "NFLOAT_4")
        }
        for form, process in forms.items():
            say(
                "tests",
                {
                    "what": f"toy end to end in {form}",
                    "exit code": process.wait(120),
                    "file": (folder / form / "lora.safetensors").exists(),
                },
            )
    except Exception as error:
        say(
            "tests",
            {"what": "tests", "failed": f"{type(error).__name__}: {str(error)[:300]}"},
        )
        traceback.print_exc()
    finally:
        for process in (
            STARTED
        ):  # an engine is a session of its own: whoever is left goes with its command
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        for run in folder.iterdir():
            who = (
                json.loads((run / "who.json").read_text())
                if (run / "who.json").exists()
                else {}
            )
            if who.get("pid") and Path(f"/proc/{who['pid']}").exists():
                os.kill(who["pid"], signal.SIGKILL)


def device_of(run: Path) -> str:
    text = (run / "log.txt").read_text() if (run / "log.txt").exists() else ""
    return next(
        (line for line in text.splitlines() if line.startswith("training on")), "?"
    )


def tensors_equal(one: Path, other: Path) -> bool:
    from safetensors.torch import load_file

    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def suite() -> None:
    """The engine's own tests, which take the best device there is; most fit beside each other on one card."""
    seconds = int(left() - 10)
    if seconds < 40:
        REPORT["left_out"].append("suite")
        return
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--maxfail=30",
        "-x" if not CUDA else "--tb=line",
        "tests/engine",
        "--ignore=tests/engine/models/test_flux1_files.py",
    ]  # wants huggingface_hub 2's httpx2
    command += ["-n", "8"] if CUDA else []
    with (OPT.out / "suite.log").open("wb") as log:
        try:
            done = subprocess.run(
                command,
                cwd=PROJECT,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=seconds,
            )
            code = done.returncode
        except subprocess.TimeoutExpired:
            code = "cut off"
    tail = (OPT.out / "suite.log").read_text(errors="replace").splitlines()[-12:]
    say(
        "tests",
        {"what": "tests/engine on this device", "exit code": code, "end": tail[-1:]},
    )
    print("\n".join(tail), flush=True)


# --- diffusers' own script, unchanged, on a full-size model of random weights ---


def peer(rate: float) -> None:
    script = Path(__file__).resolve().parent / "peers" / "train_dreambooth_lora_flux.py"
    if not script.exists() or left() < 60:
        REPORT["left_out"].append("peer")
        return
    MASTER.clear()
    clear()
    for size in SIZES[:1]:
        notes = OPT.out / f"peer-{size}.json"
        command = [
            sys.executable,
            __file__,
            "--project",
            str(PROJECT),
            "--out",
            str(OPT.out),
            "--peer-size",
            str(size),
            "--peer-run",
            str(script),
            str(notes),
        ]
        with (OPT.out / "peer.log").open("wb") as log:
            try:
                code = subprocess.run(
                    command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=max(30, left() - 5),
                ).returncode
            except subprocess.TimeoutExpired:
                code = "cut off"
        if not notes.exists():
            say(
                "rows",
                {
                    "what": "diffusers' script",
                    "failed": code,
                    "end": (OPT.out / "peer.log").read_text(errors="replace")[-600:],
                },
            )
            continue
        row = json.loads(notes.read_text())
        times = row["times"]
        steps = sorted(
            after - before for before, after in zip(times[2:], times[3:], strict=False)
        )
        median = steps[len(steps) // 2]
        ours = BASE.get((size, 1, "attention"))
        say(
            "rows",
            {
                "what": "diffusers' script, bf16, attention only",
                "px": size,
                "s/step": round(median, 3),
                "peak GiB": round(row["peak"] / GIB, 2),
                "ours of it": round(ours / median, 3) if ours else "",
                "exit code": code,
            },
        )


def be_the_peer(script: str, notes: Path) -> None:
    """Run the script in this process: its transformer is made on the device, its encoders and VAE are toys of the right width."""
    import runpy
    import tempfile
    from dataclasses import replace

    import diffusers
    import diffusers.utils
    from blockrate.core.blocks import BlockLayout
    from blockrate.engine.models.tiny import make_tiny_flux
    from torch.optim.optimizer import register_optimizer_step_post_hook

    size, full = OPT.peer_size, spec()
    folder = Path(tempfile.mkdtemp())
    make_tiny_flux(
        folder / "model", spec=replace(full, layout=BlockLayout(1, 1), heads=1)
    )
    (folder / "images").mkdir()
    from PIL import Image

    for number in range(2):
        Image.effect_noise((size, size), 50).convert("RGB").save(
            folder / "images" / f"{number}.png"
        )
    diffusers.utils.check_min_version = lambda *_: None
    diffusers.FluxTransformer2DModel.from_pretrained = lambda *_, **__: random_base(
        False
    )
    try:
        import torchvision  # noqa: F401
    except ImportError:
        from peer import _stand_in_for_torchvision

        _stand_in_for_torchvision()
    times: list[float] = []

    def note(*_) -> None:
        wait()
        times.append(time.perf_counter())
        if len(times) == 2 and CUDA:
            torch.cuda.reset_peak_memory_stats()
        peak = torch.cuda.max_memory_allocated() if CUDA else 0
        notes.write_text(json.dumps({"times": times, "peak": peak}))
        if len(times) >= 9:
            os._exit(0)  # what it saves at its end is not measured

    register_optimizer_step_post_hook(note)
    values = {
        "pretrained_model_name_or_path": folder / "model", "instance_data_dir": folder / "images", "instance_prompt": "a photo of a cat",
        "resolution": size, "train_batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 1e-4, "lr_scheduler": "constant",
        "lr_warmup_steps": 0, "output_dir": folder / "out", "rank": 16, "lora_layers": ATTENTION, "seed": 0, "max_sequence_length": TEXT,
        "mixed_precision": "bf16", "max_train_steps": 9,
    }  # fmt: skip
    sys.argv = [
        script,
        *(word for name, value in values.items() for word in (f"--{name}", str(value))),
        "--gradient_checkpointing",
        "--cache_latents",
    ]
    runpy.run_path(script, run_name="__main__")


def main() -> None:
    if OPT.peer_run:
        return be_the_peer(OPT.peer_run[0], Path(OPT.peer_run[1]))
    only = OPT.only.split(",")
    rate = facts()
    import warnings

    warnings.filterwarnings("ignore")
    if "rows" in only:
        rows(rate)
    if "tests" in only:
        MASTER.clear()
        clear()
        tests()
    if "peer" in only:
        peer(rate)
    if "cures" in only:
        cures(rate)
    if "compile" in only:
        compiled(rate)
    if "suite" in only:
        MASTER.clear()
        clear()
        suite()
    table()


def table() -> None:
    print(
        "\n| what | px | s/step | % of matmul | peak GiB | predicted | cost | predicted | of bare |\n|---|---|---|---|---|---|---|---|---|"
    )
    for row in REPORT["rows"] + REPORT["cures"]:
        cells = [
            row.get(key, "")
            for key in (
                "what",
                "px",
                "s/step",
                "% of matmul rate",
                "peak GiB",
                "predicted GiB",
                "cost measured",
                "cost predicted",
                "of bare loop",
            )
        ]
        cells[2] = row.get("failed", cells[2])
        print("| " + " | ".join(map(str, cells)) + " |")
    for row in REPORT["tests"]:
        print(row)
    print(
        "left out:",
        REPORT["left_out"],
        f"  {time.monotonic() - BEGUN:.0f} s in all",
        flush=True,
    )


if __name__ == "__main__":
    main()
