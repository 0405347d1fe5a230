"""AdamW with rounding by chance, compiled into one kernel: what it learns without, compiled once and for all rates."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.lives import Small
from torch import Tensor, nn

from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.engine.compiling import check_compile
from blockrate.engine.rounding_adamw import StochasticRoundingAdamW
from blockrate.run.checkpoints import checkpoint_name
from blockrate.run.folder import RunFolder

try:
    check_compile(TrainConfig.model_validate({"compile": True}), torch.device("cpu"))
    REFUSED = ""
except ConfigError as error:
    REFUSED = str(error)
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(bool(REFUSED), reason=REFUSED),
    # torch's own, while it imports its compiler
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
STEPS = 20
# squares and others, one row, and two that stay as they are: no whole rows of 16, and no memory that lies together
SHAPES = ((96, 64), (64, 64), (33, 32), (128,), (3, 5), (16,))
RATES = (1e-3, 1e-2)


@pytest.fixture(autouse=True)
def compiler() -> Iterator[Any]:
    """torch's counters, of a compiler that knows nothing yet; a run without ``compile`` may have switched it off."""
    from torch import _dynamo
    from torch._dynamo.utils import counters

    _dynamo.reset()
    counters.clear()
    with _dynamo.config.patch(disable=False):
        yield counters


def parameters() -> list[nn.Parameter]:
    stream = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=stream).bfloat16() for shape in SHAPES]
    made.append(torch.randn((64, 32), generator=stream).bfloat16().t())
    made.append(torch.randn((48, 32), generator=stream))
    return [nn.Parameter(tensor) for tensor in made]


def optimizer(
    weights: list[nn.Parameter], *, compiles: bool
) -> StochasticRoundingAdamW:
    names = list("abcdefgh")[: len(weights)]
    groups: list[dict[str, Any]] = [
        {"params": weights[:3], "param_names": names[:3], "lr": RATES[0]},
        {"params": weights[3:], "param_names": names[3:], "lr": RATES[1]},
    ]
    return StochasticRoundingAdamW(
        groups,
        betas=(0.9, 0.99),
        eps=1e-8,
        weight_decay=0.1,
        seed=3,
        compiles=compiles,
    )


def steps_apart(one: Tensor, other: Tensor) -> Tensor:
    """How many numbers of bf16 lie between; of other types whether they are far."""
    if one.dtype == torch.bfloat16:
        return (one.view(torch.int16).int() - other.view(torch.int16).int()).abs()
    return (~torch.isclose(one, other, rtol=1e-5, atol=1e-6)).int() * 9


def test_it_learns_what_kernel_by_kernel_is_learned(compiler: Any) -> None:
    from torch._inductor import metrics

    metrics.reset()
    plain, compiled = parameters(), parameters()
    optimizers = [optimizer(plain, compiles=False), optimizer(compiled, compiles=True)]
    graphs = []
    stream = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        for one, other in zip(plain, compiled, strict=True):
            one.grad = torch.randn(one.shape, generator=stream).to(one.dtype)
            other.grad = one.grad.clone()
        for each in optimizers:
            for group, rate in zip(each.param_groups, RATES, strict=True):
                group["lr"] = rate * (step + 1) / STEPS
            each.step()
        graphs.append(compiler["stats"]["unique_graphs"])
    # bf16 and fp32, and bf16 once more when a second size has come
    assert graphs == [3] * STEPS
    assert not compiler["graph_break"]
    assert metrics.generated_kernel_count == graphs[0]
    apart = []
    for number, (one, other) in enumerate(zip(plain, compiled, strict=True)):
        distance = steps_apart(one.detach(), other.detach())
        mine, theirs = optimizers[0].state[one], optimizers[1].state[other]
        assert mine.keys() == theirs.keys()
        if number in (4, 5, 6):  # never compiled
            assert torch.equal(one, other)
        for name, value in mine.items():
            assert value.dtype == theirs[name].dtype == torch.float32
            torch.testing.assert_close(theirs[name], value, rtol=1e-5, atol=1e-6)
        apart.append(distance.flatten())
    all_of_them = torch.cat(apart)
    assert all_of_them.max() <= 1
    assert (all_of_them > 0).float().mean() <= 1e-3


def test_a_change_is_seen_by_autograd() -> None:
    weight = nn.Parameter(torch.ones(4, 16).bfloat16())
    loss = (weight * weight).sum()
    weight.grad = torch.ones_like(weight)
    optimizer([weight], compiles=True).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]


def config(small: Small, run: Path, **settings: Any) -> TrainConfig:
    fused = settings.pop("fused", False)
    return small.config(
        run,
        training_method="FINE_TUNE",
        output_model_format="DIFFUSERS",
        transformer={"weight_dtype": "BFLOAT_16"},
        optimizer={"fused_back_pass": fused},
        epochs=2,
        gradient_accumulation_steps=1,
        clip_grad_norm=None,
        layer_filter="attn,ff,proj_mlp",
        **settings,
    )


def tensors(run: RunFolder) -> dict[str, Tensor]:
    """What the newest checkpoint of a run holds."""
    found = {}
    for file in (run.checkpoints / checkpoint_name(6)).glob("*.safetensors"):
        for name, tensor in load_file(file).items():
            found[f"{file.name}: {name}"] = tensor
    return found


def nearly_equal(one: RunFolder, other: RunFolder) -> None:
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        far = steps_apart(tensor, second[name])
        # the gradients of later steps see what was rounded to the other side
        assert (far > 1).float().mean() <= 0.01, name


def test_runs_go_on_with_and_without_it(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiler: Any
) -> None:
    # the blocks themselves take a minute to compile
    monkeypatch.setattr(
        "diffusers.FluxTransformer2DModel.compile_repeated_blocks", lambda model: None
    )
    runs = {}
    for name, settings in {
        "plain": {},
        "compiled": {"compile": True},
        "fused": {"compile": True, "fused": True},
    }.items():
        before = compiler["stats"]["unique_graphs"]
        runs[name] = small.live(config(small, tmp_path / name, **settings))
        assert (compiler["stats"]["unique_graphs"] > before) == (name == "compiled")
    nearly_equal(runs["plain"], runs["compiled"])
    fused = tensors(runs["fused"])
    for name, tensor in tensors(runs["compiled"]).items():
        assert torch.equal(tensor, fused[name]), name
    for begun, compiles in (("plain", True), ("compiled", False), ("compiled", True)):
        cut = RunFolder(tmp_path / f"{begun}, and then {compiles}")
        first = checkpoint_name(2)
        shutil.copytree(runs[begun].checkpoints / first, cut.checkpoints / first)
        small.live(config(small, cut.path, compile=compiles))
        nearly_equal(cut, runs[begun])
    whole = tensors(runs["compiled"])
    for name, tensor in tensors(cut).items():
        assert torch.equal(tensor, whole[name]), name
