"""kohya's flux_train_network.py, unchanged, beside blockrate: their optimizer steps in turns, in one process.

    python peer_sd_scripts.py --scripts SD_SCRIPTS --project BLOCKRATE [--shape small|deep|full] [--modules all|attention]
        [--checkpointing] [--rounds 30] [--run ours bare-ours peer bare-peer ours-half peer-half peer-half-by-index ...]

SD_SCRIPTS is a checkout of kohya-ss/sd-scripts: library/, networks/, flux_train_network.py and train_network.py are enough.
Nothing in it is changed: from outside, what loads models is replaced by makers of random ones in its own classes, and names
that newer versions of its dependencies have dropped are put back. Every contestant is a whole trainer in a thread of its
own, stopped once a step until it is its turn again; so one turn is a whole step: data, forward, backward, clipping,
optimizer, schedule, progress bar or events. ``bare-X``: a loop without a trainer on X's own model and adapters.
``quiet-X``: X without the peer's update_grad_norms, which it calls in every step, whether GGPO is on or not: what it costs.

Names: ours or peer, then any of -half (the first half of the blocks has rate 0; of the peer: network_reg_lrs with 0),
-half-by-index (of the peer: train_*_block_indices instead), -fused (of the peer: torch's fused AdamW).
``--shape full`` is FLUX.1 with random bf16 weights and needs a GPU (without one it goes the same ways at toy width: a
rehearsal); the toys are fp32 on the CPU, with equal weights in both. "Blocks run": forwards of blocks in a step, so with
checkpointing also the recomputed ones, which shows how far down the backward pass goes.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

parser = argparse.ArgumentParser()
parser.add_argument("--scripts", type=Path, required=True)
parser.add_argument("--project", type=Path, required=True)
parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "peer-out")))
parser.add_argument("--shape", choices=["small", "deep", "full"], default="small")
parser.add_argument("--modules", choices=["all", "attention"], default="all")
parser.add_argument("--checkpointing", action="store_true")
parser.add_argument("--pixels", type=int, default=0)
parser.add_argument("--rounds", type=int, default=30)
parser.add_argument("--warm", type=int, default=3)
parser.add_argument(
    "--seconds", type=float, default=600, help="no new round after so long"
)
parser.add_argument(
    "--run", nargs="+", default=["bare-ours", "ours", "bare-peer", "peer"]
)
parser.add_argument(
    "--peer-args", default="", help="more arguments for the peer, such as '--fp8_base'"
)
OPT = parser.parse_args()
BEGUN = time.monotonic()
FULL = OPT.shape == "full"
if not FULL:
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    PYTHONWARNINGS="ignore",
)
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
sys.path[:0] = [
    str(OPT.project.resolve() / "src"),
    str(OPT.project.resolve() / "benchmarks"),
    str(OPT.scripts.resolve()),
]
OPT.out.mkdir(parents=True, exist_ok=True)
SCREEN = sys.stdout
TALK = (OPT.out / "talk.log").open(
    "w", buffering=1
)  # progress bars and all else that the trainers print

import warnings  # noqa: E402

warnings.filterwarnings("ignore")
import torch  # noqa: E402

CUDA = FULL and torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
GIB = 2**30
RANK, RATE = 16, 1e-4
if not CUDA:
    torch.set_num_threads(1)

from bare_loop import bare_loop  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from common import TOY, make_toy, milliseconds, ratios, spread, toy_config  # noqa: E402
from diffusers import FluxTransformer2DModel  # noqa: E402
from diffusers.models.transformers import transformer_flux  # noqa: E402
from work import Work  # noqa: E402

from blockrate.core.blocks import BlockLayout  # noqa: E402
from blockrate.core.families import FAMILIES  # noqa: E402
from blockrate.engine import train  # noqa: E402
from blockrate.engine.outputs import Outputs  # noqa: E402
from blockrate.run.events import EventLog  # noqa: E402
from blockrate.run.folder import RunFolder, StopFlag  # noqa: E402

SPEC = {
    "small": TOY,
    "deep": FAMILIES["tiny-flux1"].spec,
    "full": FAMILIES["flux1-dev" if CUDA else "tiny-flux1"].spec,
}[OPT.shape]
PIXELS = OPT.pixels or (512 if CUDA else 64)
TEXT = 512 if CUDA else 64
NAMES = SPEC.layout.names
HALF = len(NAMES) // 2
DOUBLE, SINGLE = SPEC.layout.double, SPEC.layout.single

# Linears that both can adapt alike: the peer's are fused (q, k, v; and in single blocks the MLP's first layer with them).
OUR_FILTER = {
    "all": {"layer_filter_preset": "blocks", "layer_filter": ""},
    "attention": {
        "layer_filter_regex": True,
        "layer_filter": r"^transformer_blocks\.\d+\.attn\.,^single_transformer_blocks\.\d+\.(attn\.|proj_mlp)",
    },
}
PEER_FILTER = {"all": [], "attention": ["network_reg_dims=(mlp|mod|linear2)=0"]}


class Count(TorchDispatchMode):
    """Calls of torch's operators in a step, and those of them that start work on a device. Widths do not change them."""

    on = False
    idle = (
        "aten::empty",
        "aten::detach",
        "aten::alias",
        "aten::lift_fresh",
        "aten::is_",
        "aten::_local_scalar",
        "aten::unbind",
        "aten::_unsafe_view",
    )

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.kernels = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        self.kernels += not (function.is_view or function.name().startswith(self.idle))
        return function(*args, **(kwargs or {}))


class Enough(BaseException):
    """Ends a trainer's thread."""


@dataclass
class Contestant:
    """Somebody who takes a step when told to."""

    name: str
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)
    blocks: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    state: SimpleNamespace = field(default_factory=SimpleNamespace)
    error: str = ""

    def __post_init__(self) -> None:
        self.go, self.done, self.over = threading.Event(), threading.Event(), False
        self.counting: Count | None = None
        self.counts = (0, 0)
        self.job = None
        self.thread: threading.Thread | None = None

    def step(self) -> None:
        self.go.set()
        self.done.wait()
        self.done.clear()
        if self.error:
            raise SystemExit(f"{self.name} failed: {self.error}")

    def lend(self, job) -> None:
        """Let its thread do something else, between two of its steps: a thread has its own heap, and so its own speed."""
        self.job = job
        self.step()

    def stop_here(self) -> None:
        """Called by the trainer between two steps: tell, and wait for the next turn."""
        if self.counting and self.counting.on:
            self.counting.__exit__(None, None, None)
            self.counting = None
        while True:
            self.done.set()
            self.go.wait()
            self.go.clear()
            if self.over:
                raise Enough
            job, self.job = self.job, None
            if not job:
                break
            job()
        if self.counting:
            self.counting.on = True
            self.counting.__enter__()

    def start(self, target) -> None:
        """Run a trainer up to where its first step begins or has just ended."""

        def life() -> None:
            try:
                target(self)
                self.error = "it ended before its turn"
            except Enough:
                pass
            except BaseException as error:
                self.error = f"{type(error).__name__}: {str(error)[:400]}"
                traceback.print_exc(file=TALK)
            self.done.set()

        self.thread = threading.Thread(target=life, name=self.name, daemon=True)
        self.thread.start()
        self.done.wait()
        self.done.clear()
        if self.error:
            raise SystemExit(
                f"{self.name} failed at its start: {self.error}; see {TALK.name}"
            )

    def end(self) -> None:
        if self.thread:
            self.over = True
            self.go.set()
            self.thread.join(30)


# --- models ---


def make_model_folder(folder: Path) -> None:
    """A toy on disk; for the full size only its encoders are real files, of the right widths."""
    if not FULL:
        make_toy(folder, spec=SPEC, images=4)
        return
    from PIL import Image

    make_toy(folder, spec=replace(SPEC, layout=BlockLayout(1, 1), heads=1), images=1)
    config = folder / "model" / "transformer" / "config.json"
    values = json.loads(config.read_text())
    values |= {
        "num_layers": DOUBLE,
        "num_single_layers": SINGLE,
        "num_attention_heads": SPEC.heads,
    }
    config.write_text(json.dumps(values))  # so that plans and filters see all blocks
    for number in range(4):
        Image.effect_noise((PIXELS, PIXELS), 50).convert("RGB").save(
            folder / "images" / f"{number}.png"
        )


def random_on_device(make) -> torch.nn.Module:
    """A model of random bf16 weights, made on the device: so small that 57 blocks stay finite."""
    with torch.device("meta"):
        model = make().to(torch.bfloat16)
    model.to_empty(device=DEVICE)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.normal_(0, 0.02) if parameter.ndim > 1 else parameter.fill_(
                0.0 if name.endswith("bias") else 1.0
            )
    return model.requires_grad_(False)


# --- blockrate ---


def our_config(folder: Path, name: str):
    form = "BFLOAT_16" if FULL else "FLOAT_32"
    half = {block: 0.0 for block in NAMES[:HALF]}
    changes = {
        "workspace_dir": str(folder / name), "cache_dir": str(folder / "cache"), "epochs": 100_000, "backup_after_unit": "NEVER",
        "output_model_destination": str(folder / name / "lora.safetensors"), "resolution": str(PIXELS), "learning_rate": RATE,
        "text_encoder_2_sequence_length": TEXT, "train_dtype": form, "aspect_ratio_bucketing": False, "train_device": DEVICE.type,
        "transformer": {"weight_dtype": form, "gradient_checkpointing": OPT.checkpointing},
        "block_learning_rate_multiplier": {**half, "other": 1.0} if "-half" in name else {}, **OUR_FILTER[OPT.modules],
    }  # fmt: skip
    return toy_config(folder, **changes)


def be_ours(me: Contestant) -> None:
    class Visited(Outputs):
        def before_first_step(self, step: int) -> None:
            super().before_first_step(step)
            me.state.trainee, me.state.batch = (
                self.trainee,
                self.data.step_batches(0)[0],
            )

        def after_step(self, step, result, rate) -> None:
            super().after_step(step, result, rate)
            me.losses.append(result.loss)
            me.stop_here()

    config = our_config(FOLDER, me.name)
    run = RunFolder(Path(config.workspace_dir))
    run.create("{}")
    with patch.object(train, "Outputs", Visited):
        train.train(config, run, EventLog(run.events_file), StopFlag())


def our_bare(owner: Contestant):
    trainee = owner.state.trainee
    optimizer = torch.optim.AdamW(trainee.trained.values(), lr=RATE, fused=True)
    return bare_loop(trainee, owner.state.batch, optimizer)


# --- kohya's ---

PEERS: dict[int, Contestant] = {}  # by thread


def import_peer():
    """Its modules, with the names that it misses in newer dependencies put back."""
    import diffusers  # noqa: F401
    from diffusers import StableDiffusionPipeline  # noqa: F401  # transformers makes its lazy module anew in between
    from transformers import CLIPTextModel  # noqa: F401

    transformers = sys.modules["transformers"]
    transformers.CLIPFeatureExtractor = getattr(
        transformers, "CLIPFeatureExtractor", transformers.CLIPImageProcessor
    )
    import flux_train_network as script
    from library import flux_models, flux_utils, strategy_base

    return SimpleNamespace(
        script=script, models=flux_models, utils=flux_utils, strategies=strategy_base
    )


def replace_loaders(peer) -> None:
    """Everything that would read a file of weights makes a model of the peer's own classes."""
    m = peer.models
    params = m.FluxParams(
        in_channels=SPEC.in_channels, vec_in_dim=SPEC.pooled_projection_dim, context_in_dim=SPEC.joint_attention_dim,
        hidden_size=SPEC.hidden, mlp_ratio=4.0, num_heads=SPEC.heads, depth=DOUBLE, depth_single_blocks=SINGLE,
        axes_dim=list(SPEC.axes_dims_rope), theta=10_000, qkv_bias=True, guidance_embed=SPEC.guidance_embeds,
    )  # fmt: skip
    small = m.AutoEncoderParams(
        resolution=256, in_channels=3, ch=32, out_ch=3, ch_mult=[1, 1, 1, 1], num_res_blocks=1, z_channels=SPEC.in_channels // 4,
        scale_factor=0.3611, shift_factor=0.1159,
    )  # fmt: skip

    def flow(*_, **__):
        if FULL:
            model = random_on_device(lambda: m.Flux(params))
        else:
            from safetensors.torch import load_file

            ours = load_file(
                FOLDER / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
            )
            model = m.Flux(params)
            model.load_state_dict(
                peer.utils.convert_diffusers_sd_to_bfl(ours, DOUBLE, SINGLE)
            )
        PEERS[threading.get_ident()].state.flux = model
        return False, model

    def encoder(kind: str, folder: str):
        def load(_path, dtype, *_, **__):
            import transformers

            return getattr(transformers, kind).from_pretrained(
                FOLDER / "model" / folder, dtype=dtype or torch.float32
            )

        return load

    peer.utils.analyze_checkpoint_state = lambda *_: (
        False,
        False,
        (DOUBLE, SINGLE),
        [],
    )
    peer.utils.load_flow_model = flow
    peer.utils.load_clip_l = encoder("CLIPTextModel", "text_encoder")
    peer.utils.load_t5xxl = encoder("T5EncoderModel", "text_encoder_2")
    peer.utils.load_ae = lambda _path, dtype, *_, **__: m.AutoEncoder(small).to(dtype)
    names = {"CLIPTokenizer": "tokenizer", "T5TokenizerFast": "tokenizer_2"}
    peer.strategies.TokenizeStrategy._load_tokenizer = lambda _self, kind, *_, **__: (
        kind.from_pretrained(FOLDER / "model" / names.get(kind.__name__, "tokenizer_2"))
    )

    import networks.lora_flux as lora

    create = lora.create_network

    def created(*given, **named):
        network = create(*given, **named)
        PEERS[threading.get_ident()].state.network = network
        return network

    lora.create_network = created


def peer_arguments(name: str) -> list[str]:
    network = list(PEER_FILTER[OPT.modules])
    if "-by-index" in name:
        network += [
            "train_double_block_indices=" + _range(HALF, DOUBLE, 0),
            "train_single_block_indices=" + _range(HALF, DOUBLE + SINGLE, DOUBLE),
        ]
    elif "-half" in name:
        singles = "|".join(str(index) for index in range(HALF - DOUBLE))
        network += [f"network_reg_lrs=double_blocks_|single_blocks_({singles})_=0"]
    values = {
        "pretrained_model_name_or_path": "random", "clip_l": "random", "t5xxl": "random", "ae": "random",
        "train_data_dir": FOLDER / "peer-images", "resolution": f"{PIXELS},{PIXELS}", "caption_extension": ".txt", "train_batch_size": 1,
        "output_dir": FOLDER / name, "output_name": "lora", "network_module": "networks.lora_flux", "network_dim": RANK, "network_alpha": RANK,
        "learning_rate": RATE, "optimizer_type": "AdamW", "lr_scheduler": "constant", "max_train_steps": 1_000_000, "seed": 7,
        "mixed_precision": "bf16" if FULL else "no", "guidance_scale": 1.0, "timestep_sampling": "flux_shift", "model_prediction_type": "raw",
        "t5xxl_max_token_length": TEXT, "max_data_loader_n_workers": 0, "loss_type": "l2",
    }  # fmt: skip
    words = [word for key, value in values.items() for word in (f"--{key}", str(value))]
    words += [
        "--sdpa",
        "--cache_latents",
        "--cache_text_encoder_outputs",
        "--network_train_unet_only",
        "--lowram",
    ]
    words += ["--gradient_checkpointing"] if OPT.checkpointing else []
    words += ["--network_args", *network] if network else []
    words += ["--optimizer_args", "fused=True"] if "-fused" in name else []
    return words + OPT.peer_args.split()


def _range(first_of_all: int, end: int, offset: int) -> str:
    """Which blocks of a kind train, as the peer writes it: those of all blocks from ``first_of_all`` on."""
    first, last = max(first_of_all - offset, 0), end - offset - 1
    return "none" if first > last else f"{first}-{last}"


def be_the_peer(me: Contestant) -> None:
    PEERS[threading.get_ident()] = me
    for kind in (
        "TokenizeStrategy",
        "TextEncodingStrategy",
        "LatentsCachingStrategy",
        "TextEncoderOutputsCachingStrategy",
    ):
        getattr(
            PEER.strategies, kind
        )._strategy = None  # it allows one each in a process
    make = PEER.script.setup_parser()
    with patch.object(sys, "argv", ["flux_train_network.py", *peer_arguments(me.name)]):
        arguments = make.parse_args()
        from library import train_util

        train_util.verify_command_line_training_args(arguments)
        arguments = train_util.read_config_from_file(arguments, make)
    trainer = PEER.script.FluxNetworkTrainer()
    batch_of = trainer.process_batch

    def watched(*given, **named):
        me.state.batch = given[0]
        me.stop_here()  # gradients are gone, the next batch is there
        loss = batch_of(*given, **named)
        if len(me.losses) < 3:
            me.losses.append(loss.item())
        return loss

    trainer.process_batch = watched
    trainer.train(arguments)


def after_any_optimizer(optimizer, *_) -> None:
    PARTS["optimizer"].wall += time.perf_counter() - STARTED.get(
        threading.get_ident(), 0.0
    )
    me = PEERS.get(threading.get_ident())
    if me and not hasattr(me.state, "optimizer"):
        me.state.optimizer = optimizer
    if me and getattr(me.state, "look", False):
        me.state.seen = gradients(me)


STARTED: dict[int, float] = {}
PARTS = {
    name: Work()
    for name in (
        "forward and backward",
        "optimizer",
        "clipping",
        "data",
        "gradient norms",
        "gradient copies",
    )
}
BLOCKS = [0]


def counted(function):
    def call(*given, **named):
        BLOCKS[0] += 1
        return function(*given, **named)

    return call


def watch_parts() -> None:
    """Time the parts of a step wherever they are called, and count the blocks that run."""
    from accelerate import Accelerator
    from blockrate.engine import steps
    from blockrate.engine.preparation import Data
    from library import train_util
    from networks.lora_flux import LoRANetwork
    from torch.optim.optimizer import (
        register_optimizer_step_post_hook,
        register_optimizer_step_pre_hook,
    )

    register_optimizer_step_pre_hook(
        lambda *_: STARTED.__setitem__(threading.get_ident(), time.perf_counter())
    )
    register_optimizer_step_post_hook(after_any_optimizer)
    models = PEER.models
    for part, owner, name in (
        ("forward and backward", FluxTransformer2DModel, "forward"),
        ("forward and backward", models.Flux, "forward"),
        ("forward and backward", torch.Tensor, "backward"),
        ("clipping", Accelerator, "clip_grad_norm_"),
        ("clipping", steps, "clip_grads_with_norm_"),
        ("clipping", steps, "get_total_norm"),
        ("data", train_util.DatasetGroup, "__getitem__"),
        ("data", Data, "step_batches"),
        ("gradient norms", LoRANetwork, "update_grad_norms"),
        ("gradient copies", PEER.script.FluxNetworkTrainer, "all_reduce_network"),
    ):
        setattr(owner, name, PARTS[part].timed(getattr(owner, name)))
    for owner, name in (
        (models.DoubleStreamBlock, "_forward"),
        (models.SingleStreamBlock, "_forward"),
        (transformer_flux.FluxTransformerBlock, "forward"),
        (transformer_flux.FluxSingleTransformerBlock, "forward"),
    ):
        setattr(owner, name, counted(getattr(owner, name)))


def peer_bare(owner: Contestant):
    """The same step as ``bare_loop``, on the peer's model and adapters."""
    flux, batch, utils = owner.state.flux, owner.state.batch, PEER.utils
    dtype = torch.bfloat16 if FULL else torch.float32
    latents = batch["latents"].to(DEVICE)
    pooled, embeds, text_ids = (
        tensor.to(DEVICE) for tensor in batch["text_encoder_outputs_list"][:3]
    )
    image_ids = utils.prepare_img_ids(
        1, latents.shape[2] // 2, latents.shape[3] // 2
    ).to(DEVICE)
    latents, guidance = utils.pack_latents(latents), torch.ones(1, device=DEVICE)
    parameters = [
        parameter
        for group in owner.state.optimizer.param_groups
        for parameter in group["params"]
    ]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, fused=True)

    def step() -> None:
        noise, sigma = (
            torch.randn_like(latents),
            torch.sigmoid(torch.randn(1, device=DEVICE)),
        )
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=FULL):
            prediction = flux(
                img=((1 - sigma) * latents + sigma * noise).to(dtype), img_ids=image_ids, txt=embeds, txt_ids=text_ids, y=pooled,
                timesteps=sigma.to(dtype), guidance=guidance,
            )  # fmt: skip
        loss = (prediction.float() - (noise - latents)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def peer_quiet(owner: Contestant):
    """A step of the peer itself, without its gradient norms."""

    def step() -> None:
        owner.state.network.update_grad_norms = lambda: None
        owner.step()
        del owner.state.network.update_grad_norms

    return step


# --- the race ---


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGUN:4.0f} s] {text}", file=SCREEN, flush=True)


def counted_job(job, count: Count) -> None:
    with count:
        job()


def same_model() -> str:
    """How far the two models' outputs lie apart on equal inputs, with fresh adapters (which add nothing)."""
    peer = next((c for c in CONTESTANTS.values() if hasattr(c.state, "flux")), None)
    ours = next((c for c in CONTESTANTS.values() if hasattr(c.state, "trainee")), None)
    if FULL or not peer or not ours:
        return "not compared"
    side, t = PIXELS // 16, torch.full((1,), 0.3)
    image, text, pooled = (
        torch.randn(1, side * side, SPEC.in_channels),
        torch.randn(1, TEXT, SPEC.joint_attention_dim),
        torch.randn(1, SPEC.pooled_projection_dim),
    )
    ids, text_ids, one = (
        PEER.utils.prepare_img_ids(1, side, side),
        torch.zeros(1, TEXT, 3),
        torch.ones(1),
    )
    weights = [
        (parameter, parameter.detach().clone())
        for parameter in [
            *ours.state.trainee.trained.values(),
            *peer.state.network.parameters(),
        ]
    ]
    with torch.no_grad():
        for parameter, _ in weights:
            parameter.zero_()
        a = ours.state.trainee.transformer(
            image, text, pooled, t, ids[0], text_ids[0], one
        ).sample
        b = peer.state.flux(
            img=image,
            img_ids=ids,
            txt=text,
            txt_ids=text_ids,
            y=pooled,
            timesteps=t,
            guidance=one,
        )
        for parameter, before in weights:
            parameter.copy_(before)
    return f"largest difference {(a - b).abs().max():.2e} of {a.abs().max():.2f}"


def norm(tensors) -> float:
    return (
        round(
            float(torch.stack([tensor.float().norm() for tensor in tensors]).norm()), 5
        )
        if tensors
        else 0.0
    )


def gradients(contestant: Contestant) -> dict:
    """Right after the peer's optimizer: what its parameters in no group have kept, and what the others had in this step."""
    grouped = {
        id(p)
        for group in contestant.state.optimizer.param_groups
        for p in group["params"]
    }
    given = [p for p in contestant.state.network.parameters() if p.grad is not None]
    kept, used = (
        [p.grad for p in given if (id(p) in grouped) is side] for side in (False, True)
    )
    return {
        "gradient kept in idle adapters": norm(kept),
        "of the trained in that step": norm(used),
        "idle tensors with a gradient": len(kept),
    }


def adapters(contestant: Contestant) -> dict:
    """What trains."""
    state = contestant.state
    if hasattr(state, "trainee"):
        trained = list(state.trainee.trained.values())
        optimizer = state.trainee.optimizer
    elif hasattr(state, "network") and hasattr(state, "optimizer"):
        trained, optimizer = list(state.network.parameters()), state.optimizer
    else:
        return {}
    grouped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return {
        "adapter tensors": len(trained), "weights": sum(p.numel() for p in trained), "groups": len(optimizer.param_groups),
        "tensors in no group": sum(id(p) not in grouped for p in trained), "with requires_grad": sum(p.requires_grad for p in trained),
        **getattr(state, "seen", {}),
    }  # fmt: skip


def main() -> None:
    global FOLDER, PEER, CONTESTANTS
    import tempfile

    FOLDER = Path(tempfile.mkdtemp(prefix="peer-"))
    sys.stdout = sys.stderr = TALK
    make_model_folder(FOLDER)
    images = FOLDER / "peer-images" / "25_cat"
    images.mkdir(parents=True)
    for file in (FOLDER / "images").glob("*.png"):
        (images / file.name).write_bytes(file.read_bytes())
        (images / file.with_suffix(".txt").name).write_text("a photo of a cat")
    PEER = import_peer()
    say("both imported")
    replace_loaders(PEER)
    watch_parts()
    if FULL:
        from blockrate.engine.models.tiny import random_transformer

        FluxTransformer2DModel.from_pretrained = lambda *_, **__: random_on_device(
            lambda: random_transformer(SPEC)
        )
    CONTESTANTS = {}
    facts = {
        "shape": OPT.shape,
        "modules": OPT.modules,
        "checkpointing": OPT.checkpointing,
        "pixels": PIXELS,
        "text": TEXT,
        "torch": torch.__version__,
    }
    facts |= {
        name: sys.modules[name].__version__
        for name in ("transformers", "diffusers", "accelerate", "peft")
        if name in sys.modules
    }
    say(str(facts))
    for name in OPT.run:
        CONTESTANTS[name] = contestant = Contestant(name)
        if not name.startswith(("bare-", "quiet-")):
            if CUDA:
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            contestant.start(be_ours if name.startswith("ours") else be_the_peer)
            contestant.step()
            contestant.step()  # the second has moments too
            if CUDA:
                wait()
                facts[f"peak GiB of {name}"] = round(
                    (torch.cuda.max_memory_allocated() - before) / GIB, 2
                )
            say(f"{name} takes steps: {adapters(contestant)}")
    bare = {
        name: (our_bare if "ours" in name else peer_bare)(
            CONTESTANTS[name.removeprefix("bare-")]
        )
        for name in OPT.run
        if name.startswith("bare-")
    }

    def turn(name: str):
        owner = CONTESTANTS[name.removeprefix("bare-").removeprefix("quiet-")]
        if name.startswith("bare-"):
            return lambda: owner.lend(bare[name])
        return peer_quiet(owner) if name.startswith("quiet-") else owner.step

    say(f"equal models: {same_model()}")
    for number in range(OPT.warm + OPT.rounds):
        if time.monotonic() - BEGUN > OPT.seconds:
            say("out of time")
            break
        for name in random.Random(number).sample(
            OPT.run, len(OPT.run)
        ):  # whoever follows its own model finds a warm cache
            contestant = CONTESTANTS[name]
            step = turn(name)
            wait()
            parts, blocks = {part: one.wall for part, one in PARTS.items()}, BLOCKS[0]
            wall, processor = time.perf_counter(), time.process_time()
            step()
            wait()
            wall, processor = (
                time.perf_counter() - wall,
                time.process_time() - processor,
            )
            if number >= OPT.warm:
                contestant.wall.append(wall)
                contestant.processor.append(processor)
                contestant.blocks.append(BLOCKS[0] - blocks)
                for part, one in PARTS.items():
                    contestant.parts.setdefault(part, []).append(one.wall - parts[part])
    for name, contestant in CONTESTANTS.items():
        contestant.state.look = name.startswith("peer")
        owner = CONTESTANTS[name.removeprefix("quiet-")]
        owner.counting = count = Count()
        if name.startswith("bare-"):
            owner = CONTESTANTS[name.removeprefix("bare-")]
            owner.lend(lambda job=bare[name], count=count: counted_job(job, count))
        else:
            turn(name)()
        contestant.counts = count.calls, count.kernels
    report(facts)
    for contestant in CONTESTANTS.values():
        contestant.end()
    shutil.rmtree(FOLDER, ignore_errors=True)
    SCREEN.flush()
    os._exit(0)


def report(facts: dict) -> None:
    first, rows = CONTESTANTS[OPT.run[0]], []
    for name, one in CONTESTANTS.items():
        beside = [
            whole - inside
            for whole, inside in zip(
                one.wall, one.parts["forward and backward"], strict=True
            )
        ]
        row = {
            "what": name,
            "ms": milliseconds(one.wall),
            "processor ms": milliseconds(one.processor),
        }
        row |= {
            f"of {first.name}": spread(ratios(one.wall, first.wall)),
            "processor, of it": spread(ratios(one.processor, first.processor)),
        }
        if not CUDA:  # which runs ahead
            row |= {
                "forward and backward": milliseconds(one.parts["forward and backward"]),
                "beside them": milliseconds(beside),
            }
        row |= {
            "blocks run": statistics.median(one.blocks),
            "operators": one.counts[0],
            "of them kernels": one.counts[1],
        }
        others = (
            {}
            if CUDA
            else {
                part: round(1000 * statistics.median(times), 2)
                for part, times in list(one.parts.items())[1:]
            }
        )
        rows.append(
            (
                row,
                {
                    "rounds": len(one.wall),
                    **others,
                    "first losses": [round(x, 4) for x in one.losses[:3]],
                    **adapters(one),
                },
            )
        )
    (OPT.out / "peer_sd_scripts.json").write_text(
        json.dumps({"facts": facts, "rows": rows}, indent=1)
    )
    columns = list(rows[0][0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += [
        "| " + " | ".join(str(value) for value in row.values()) + " |"
        for row, _ in rows
    ]
    lines += [f"{row['what']}: {more}" for row, more in rows]
    lines += [
        f"{facts} {time.monotonic() - BEGUN:.0f} s in all, load {os.getloadavg()[0]:.1f}"
    ]
    print("\n".join(lines), file=SCREEN, flush=True)


if __name__ == "__main__":
    main()
