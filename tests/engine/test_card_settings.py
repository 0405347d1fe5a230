"""What is set for a graphics card before it works, as far as a computer without one can see it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.lives import Small, events

from blockrate.config import compiler
from blockrate.config.explain import contradictions
from blockrate.config.train_config import TrainConfig
from blockrate.core.errors import ConfigError
from blockrate.engine import exactness
from blockrate.engine.attention import attention
from blockrate.engine.compiling import check_compile, compile_warning

pytestmark = pytest.mark.usefixtures("no_sync")
CUDA = torch.device("cuda")
CPU = torch.device("cpu")


@pytest.fixture
def tf32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize(
    ("train_dtype", "deterministic", "device", "allowed"),
    [
        ("FLOAT_32", False, CUDA, True),
        ("FLOAT_32", True, CUDA, False),
        ("BFLOAT_16", False, CUDA, False),
        ("FLOAT_32", False, CPU, False),
    ],
)
def test_fp32_is_trained_in_tf32_unless_all_bits_count(
    train_dtype: str, deterministic: bool, device: torch.device, allowed: bool
) -> None:
    values = {"train_dtype": train_dtype, "deterministic": deterministic}
    exactness.allow_tf32(TrainConfig.model_validate(values), device)
    assert torch.backends.cuda.matmul.allow_tf32 is allowed


def test_what_is_deterministic_fills_no_memory() -> None:
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    with exactness.reproducible(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not memory.fill_uninitialized_memory
    assert not torch.are_deterministic_algorithms_enabled()
    assert memory.fill_uninitialized_memory is fills


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")
@pytest.mark.parametrize(
    ("own", "name", "expected"),
    [
        ({}, "PYTORCH_ALLOC_CONF", "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "x:1"}, "PYTORCH_ALLOC_CONF", "x:1"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "x:1"}, "PYTORCH_ALLOC_CONF", "None"),
    ],
)
def test_memory_in_pieces_is_asked_for_before_torch_comes(
    own: dict[str, str], name: str, expected: str
) -> None:
    lines = (
        "import os, sys",
        "from blockrate.engine.__main__ import _use_memory_in_pieces",
        "assert 'torch' not in sys.modules",
        "_use_memory_in_pieces()",
        f"print(os.environ.get({name!r}))",
    )
    clean = {key: value for key, value in os.environ.items() if "ALLOC" not in key}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env=clean | own,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected


def test_compile_without_triton_is_refused_where_a_card_would_need_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    compiled = TrainConfig.model_validate({"compile": True})
    with pytest.raises(ConfigError, match=r"compile: needs Triton, .*triton-windows"):
        check_compile(compiled, CUDA)
    check_compile(TrainConfig(), CUDA)
    monkeypatch.setattr(compiler, "find_spec", lambda name: object())
    monkeypatch.setenv("CC", sys.executable)
    check_compile(compiled, CUDA)


def test_compile_without_a_compiler_for_triton_is_refused_on_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "find_spec", lambda name: object())
    compiled = TrainConfig.model_validate({"compile": True})
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(ConfigError, match=r"C compiler for Triton, and gcc or clang"):
        check_compile(compiled, CUDA)
    monkeypatch.setattr(sys, "platform", "win32")
    check_compile(compiled, CUDA)


def test_compile_without_a_compiler_is_refused_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = TrainConfig.model_validate({"compile": True})
    monkeypatch.setenv("CXX", str(tmp_path / "c++"))
    with pytest.raises(ConfigError, match=r"compile: needs a C\+\+ compiler.* GCC"):
        check_compile(compiled, CPU)
    check_compile(TrainConfig(), CPU)
    monkeypatch.setenv("CXX", sys.executable)
    check_compile(compiled, CPU)


def test_the_number_of_sizes_is_told_to_those_who_compile() -> None:
    compiled = TrainConfig.model_validate({"compile": True})
    assert "images come in 7 sizes" in compile_warning(compiled, 7)
    assert not compile_warning(compiled, 1)
    assert not compile_warning(TrainConfig(), 7)


def test_a_run_tells_the_sizes_of_its_images(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "diffusers.FluxTransformer2DModel.compile_repeated_blocks", lambda model: None
    )
    # nothing is compiled here
    monkeypatch.setenv("CXX", sys.executable)
    run = small.live(small.config(tmp_path, epochs=1, compile=True))
    told = [event["message"] for event in events(run, "warned")]
    assert any(text.startswith("images come in 2 sizes") for text in told)


SAMPLE: dict[str, Any] = {
    "prompt": "a cat",
    "width": 64,
    "height": 64,
    "diffusion_steps": 2,
}


def test_4_bit_weights_train_on_after_a_sample_on_any_processor(
    small: Small, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    settings: dict[str, Any] = {
        "transformer": {"weight_dtype": "NFLOAT_4"},
        "samples": [SAMPLE],
        "sample_after": 1,
        "sample_after_unit": "STEP",
        "epochs": 2,
    }
    drawn = small.live(small.config(tmp_path / "drawn", **settings))
    settings["sample_after_unit"] = "NEVER"
    plain = small.live(small.config(tmp_path / "plain", **settings))
    losses = [
        [event["loss"] for event in events(run, "step")] for run in (drawn, plain)
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


@pytest.mark.parametrize("name", ["CUDNN", "FLASH", "EFFICIENT"])
def test_the_kernel_that_is_asked_for_comes_first_and_none_is_left_out(
    name: str,
) -> None:
    chosen = TrainConfig.model_validate({"transformer": {"attention_backend": name}})
    backends = torch.nn.attention.SDPBackend
    first = next(kind for kind in backends.__members__ if kind.startswith(name))
    own = torch._C._get_sdp_priority_order()
    with attention(chosen, CUDA):
        order = torch._C._get_sdp_priority_order()
        assert order[0] == getattr(backends, first).value
        assert sorted(order) == sorted(own)
        cuda: Any = torch.backends.cuda
        assert cuda.math_sdp_enabled()
        assert cuda.cudnn_sdp_enabled()
    assert torch._C._get_sdp_priority_order() == own
    with attention(TrainConfig(), CUDA):
        assert torch._C._get_sdp_priority_order() == own


def test_a_processor_has_no_choice_of_attention() -> None:
    chosen = TrainConfig.model_validate({"transformer": {"attention_backend": "FLASH"}})
    with pytest.raises(ConfigError, match=r"attention_backend: is FLASH.*DEFAULT"):
        attention(chosen, CPU)
    exact = {"transformer": {"attention_backend": "CUDNN"}, "deterministic": True}
    (found,) = contradictions(TrainConfig.model_validate(exact))
    assert found.where == "transformer.attention_backend"
