"""Every row of the optimizer catalogue: what it says about block rates is proven on tensors."""

import sys
from typing import Any

import pytest
import torch

from blockrate.config.optimizers import OPTIMIZERS, differing_rates_refusal
from blockrate.config.parts import OptimizerSettings
from blockrate.core.errors import ConfigError
from blockrate.engine.memory import dtype_of
from blockrate.engine.optimizers import (
    change_unless,
    evaluation_mode,
    make_optimizer,
    skips_by_itself,
    training_mode,
)
from blockrate.engine.rounding_adamw import StochasticRoundingAdamW

torch.set_num_threads(1)
RATES = (1.0, 0.5, 0.1)
YES = [
    name
    for name in OPTIMIZERS
    if not differing_rates_refusal(OptimizerSettings(optimizer=name))
]
NO = [name for name in OPTIMIZERS if name not in YES]


def changes(
    name: str,
    multipliers: tuple[float, float, float] | tuple[float, float] | tuple[float],
    *,
    steps: int = 10,
    learning_rate: float = 1e-3,
    shape: tuple[int, int] = (64, 128),
    dtype: torch.dtype = torch.float32,
    **options: bool,
) -> list[torch.Tensor]:
    """How far equal weights move at each multiplier, under the same gradients."""
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    if options.pop("ones", False):
        start = torch.ones(shape, dtype=dtype)
    weights = [torch.nn.Parameter(start.clone()) for _ in multipliers]
    groups = [
        {
            "name": str(i),
            "params": [weight],
            "param_names": [f"w{i}"],
            "lr": learning_rate * multiplier,
        }
        for i, (weight, multiplier) in enumerate(zip(weights, multipliers, strict=True))
    ]
    optimizer = make_optimizer(
        groups, OptimizerSettings(optimizer=name, **options), seed=1
    )
    stream = torch.Generator().manual_seed(2)
    for _ in range(steps):
        gradient = torch.randn(shape, generator=stream) * 0.1 + 0.05
        for weight in weights:
            weight.grad = gradient.to(dtype, copy=True)
        optimizer.step()
    evaluation_mode(optimizer)
    return [weight.detach().float() - start.float() for weight in weights]


@pytest.mark.parametrize("name", YES)
def test_an_update_is_proportional_to_the_multiplier(name: str) -> None:
    full, *rest = changes(name, RATES)
    assert full.norm() > 0
    for multiplier, change in zip(RATES[1:], rest, strict=True):
        assert (change - multiplier * full).norm() <= 1e-2 * (multiplier * full).norm()


@pytest.mark.parametrize("name", NO)
def test_an_optimizer_that_cannot_says_why_and_fails_on_different_rates(
    name: str,
) -> None:
    assert not OPTIMIZERS[name].per_block_rates
    refusal = differing_rates_refusal(OptimizerSettings(optimizer=name))
    assert refusal.endswith(OPTIMIZERS[name].why)
    with pytest.raises(RuntimeError, match="different lr"):
        changes(name, RATES)
    same = changes(name, (1.0, 1.0), learning_rate=1.0)
    assert same[0].any()
    assert torch.equal(*same)


def test_adafactor_with_relative_step_ignores_rates_and_is_refused() -> None:
    settings = OptimizerSettings(optimizer="ADAFACTOR", relative_step=True)
    assert "relative_step" in differing_rates_refusal(settings)
    changed = changes("ADAFACTOR", (1.0, 0.1), relative_step=True)
    assert torch.equal(*changed)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_row_takes_its_defaults_and_every_value_of_its_own(name: str) -> None:
    row = OPTIMIZERS[name]
    settings = OptimizerSettings(
        optimizer=name, **{k: v for k, v in row.parameters.items() if v is not None}
    )
    assert row.values(settings) == row.parameters
    weight = torch.nn.Parameter(torch.ones(8, 8))
    groups = [
        {"name": "double_block_0", "params": [weight], "param_names": ["w"], "lr": 1.0}
    ]
    optimizer = make_optimizer(groups, settings, seed=0)
    group = optimizer.param_groups[0]
    assert (group["name"], group["param_names"], group["lr"], group["initial_lr"]) == (
        "double_block_0",
        ["w"],
        1.0,
        1.0,
    )
    assert set(groups[0]) == {"name", "params", "param_names", "lr"}


@pytest.mark.parametrize("dtype", ["FLOAT_32", "BFLOAT_16"])
@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in OPTIMIZERS), ("ADAMW", {"stochastic_rounding": False})],
)
def test_the_bytes_of_state_are_those_that_are_allocated(
    name: str, options: dict[str, Any], dtype: str
) -> None:
    settings = OptimizerSettings(optimizer=name, **options)
    weight = torch.nn.Parameter(torch.ones(512, 512, dtype=dtype_of(dtype)))
    optimizer = make_optimizer(
        [{"params": [weight], "param_names": ["w"], "lr": 1.0}], settings, seed=0
    )
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    real = sum(
        value.nbytes
        for value in optimizer.state[weight].values()
        if isinstance(value, torch.Tensor)
    )
    stated = OPTIMIZERS[name].state_bytes_for(settings, dtype)
    # tables, and what is kept by rows and columns
    assert real / weight.numel() == pytest.approx(stated, abs=0.05)


def test_settings_reach_the_optimizer() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.ones(8, 8))], "lr": 1.0}]
    prodigy = make_optimizer(
        groups, OptimizerSettings(optimizer="PRODIGY", beta3=0.5, d0=1e-3), seed=0
    ).param_groups[0]
    assert (prodigy["betas"], prodigy["beta3"], prodigy["d0"]) == (
        (0.9, 0.999),
        0.5,
        1e-3,
    )
    assert prodigy["growth_rate"] == float("inf")
    came = make_optimizer(
        groups, OptimizerSettings(optimizer="CAME", eps2=1e-12), seed=0
    ).param_groups[0]
    assert (came["betas"], came["eps1"], came["eps2"]) == (
        (0.9, 0.999, 0.9999),
        1e-30,
        1e-12,
    )
    adamw = make_optimizer(
        groups, OptimizerSettings(beta2=0.95, weight_decay=0.5), seed=0
    ).param_groups[0]
    assert (adamw["betas"], adamw["weight_decay"], adamw["fused"]) == (
        (0.9, 0.95),
        0.5,
        True,
    )


def test_adamw_is_torchs() -> None:
    ours = changes("ADAMW", (1.0,))[0]
    weight = torch.nn.Parameter(
        torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    )
    start = weight.detach().clone()
    theirs = torch.optim.AdamW([weight], lr=1e-3, fused=True)
    stream = torch.Generator().manual_seed(2)
    for _ in range(10):
        weight.grad = torch.randn(64, 128, generator=stream) * 0.1 + 0.05
        theirs.step()
    assert torch.equal(ours, weight.detach() - start)


def test_a_device_without_fused_kernels_gets_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = torch.optim.AdamW.__init__

    def refuses(
        self: torch.optim.AdamW,
        params: list[dict[str, Any]],
        fused: bool | None = None,
        **options: Any,
    ) -> None:
        if fused:
            raise RuntimeError(
                "`fused=True` requires all the params to be of supported devices"
            )
        plain(self, params, fused=fused, **options)

    monkeypatch.setattr(torch.optim.AdamW, "__init__", refuses)
    assert changes("ADAMW", (1.0,))[0].any()
    with pytest.raises(ConfigError, match="supported devices"):
        changes("ADAMW", (1.0,), fused=True)


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prodigyopt", None)
    with pytest.raises(
        ConfigError,
        match=r"optimizer.optimizer: Prodigy needs prodigyopt.*pip install prodigyopt",
    ):
        changes("PRODIGY", (1.0,))


def test_settings_an_optimizer_refuses_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="SGD refuses these settings: Nesterov"):
        changes("SGD", (1.0,), nesterov=True)


def test_schedule_free_weights_differ_between_training_and_evaluation() -> None:
    weight = torch.nn.Parameter(torch.ones(8, 8))
    settings = OptimizerSettings(optimizer="SCHEDULE_FREE_ADAMW")
    optimizer = make_optimizer([{"params": [weight], "lr": 0.1}], settings, seed=0)
    for _ in range(3):
        weight.grad = torch.randn(8, 8)
        optimizer.step()
    trained = weight.detach().clone()
    evaluation_mode(optimizer)
    assert not torch.allclose(weight, trained)
    training_mode(optimizer)
    torch.testing.assert_close(weight.detach(), trained)


def test_bf16_weights_keep_updates_that_rounding_to_nearest_loses() -> None:
    lost = changes(
        "ADAMW",
        (1.0,),
        ones=True,
        dtype=torch.bfloat16,
        learning_rate=1e-5,
        stochastic_rounding=False,
    )[0]
    kept = changes(
        "ADAMW",
        (1.0,),
        ones=True,
        dtype=torch.bfloat16,
        learning_rate=1e-5,
        shape=(512, 512),
    )[0]
    exact = changes("ADAMW", (1.0,), ones=True, learning_rate=1e-5, shape=(512, 512))[0]
    assert not lost.any()
    assert kept.mean().item() == pytest.approx(exact.mean().item(), rel=0.1)


def test_stochastic_rounding_keeps_updates_proportional_to_the_multiplier() -> None:
    full, *rest = changes(
        "ADAMW",
        RATES,
        ones=True,
        dtype=torch.bfloat16,
        learning_rate=1e-2,
        shape=(512, 512),
    )
    for multiplier, change in zip(RATES[1:], rest, strict=True):
        assert change.mean().item() == pytest.approx(
            multiplier * full.mean().item(), rel=1e-2
        )


def test_stochastic_rounding_is_repeatable_and_different_by_parameter_step_and_seed() -> (
    None
):
    one, two = changes("ADAMW", (1.0, 1.0), dtype=torch.bfloat16)
    assert torch.equal(one, changes("ADAMW", (1.0,), dtype=torch.bfloat16)[0])
    assert not torch.equal(one, two)
    assert (one - two).abs().max() < 0.1


def test_without_bf16_weights_our_adamw_is_torchs() -> None:
    weights = [torch.nn.Parameter(torch.ones(16, 16)) for _ in range(2)]
    ours = StochasticRoundingAdamW(
        [{"params": [weights[0]], "lr": 1e-2}],
        betas=(0.9, 0.99),
        eps=1e-8,
        weight_decay=0.1,
        seed=0,
    )
    theirs = torch.optim.AdamW(
        [weights[1]], lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1
    )
    for _ in range(20):
        weights[0].grad = torch.randn(16, 16)
        weights[1].grad = weights[0].grad.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("name", ["ADAMW", "SGD"])
def test_a_fused_optimizer_leaves_bad_gradients_alone_by_itself(name: str) -> None:
    def state_of(
        optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter
    ) -> list[Any]:
        kept = optimizer.state[weight]
        return [weight.detach().clone(), *(kept[key].clone() for key in sorted(kept))]

    def made(fused: bool) -> tuple[torch.optim.Optimizer, torch.nn.Parameter]:
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 12))
        kinds = {"ADAMW": torch.optim.AdamW, "SGD": torch.optim.SGD}
        return kinds[name]([weight], lr=0.1, fused=fused), weight

    fused, weight = made(True)
    plain, other = made(False)
    assert skips_by_itself(fused)
    assert not skips_by_itself(plain)
    for _ in range(2):
        weight.grad = torch.ones(12)
        other.grad = torch.ones(12)
        change_unless(torch.tensor(False), fused)
        plain.step()
    torch.testing.assert_close(weight, other)
    before = state_of(fused, weight)
    weight.grad = torch.full((12,), float("nan"))
    change_unless(torch.tensor(True), fused)
    for value, expected in zip(state_of(fused, weight), before, strict=True):
        assert torch.equal(value, expected)
    assert not hasattr(fused, "found_inf")
