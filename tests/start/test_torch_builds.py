"""start.py: the torch build for a card, and what is said of a card that it cannot use."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.start_module import Gpu, nvidia, start

# -- which torch -------------------------------------------------------------------------------------------------------

CARDS = [
    # card, on Linux, on Windows
    (nvidia("Tesla K80", (3, 7), 470), "cpu", "cpu"),
    (nvidia("GTX 1080 Ti", (6, 1), 580), "cu126", "cu126"),
    (nvidia("Tesla V100", (7, 0), 580), "cu126", "cu126"),
    (nvidia("RTX 2080", (7, 5), 580), "cu130", "cu130"),
    (nvidia("RTX 3090", (8, 6), 595), "cu130", "cu130"),
    (nvidia("RTX 4090", (8, 9), 580), "cu130", "cu130"),
    (nvidia("H100", (9, 0), 580), "cu130", "cu130"),
    (nvidia("B200", (10, 0), 580), "cu130", "cu130"),
    (nvidia("RTX 5090", (12, 0), 595), "cu130", "cu130"),
    (nvidia("RTX 4090", (8, 9), 550), "cu126", "cu126"),
    (nvidia("RTX 3060", (8, 6), 470), "cu126", "cu126"),
    (nvidia("RTX 5090", (12, 0), 570), "cu130", "cu130"),
    (nvidia("GTX 1060", (0, 0), 390), "cu126", "cu126"),
    (Gpu("amd", "gfx1100"), "rocm7.2", "cpu"),
    (Gpu("amd", "gfx1201"), "rocm7.2", "cpu"),
    (Gpu("amd", "gfx1036"), "cpu", "cpu"),
    (Gpu("amd", "gfx906"), "cpu", "cpu"),
    (Gpu(), "cpu", "cpu"),
]


@pytest.mark.parametrize(
    ("gpu", "linux", "windows"), CARDS, ids=lambda value: " ".join(map(str, value[1:]))
)
def test_every_card_gets_the_build_made_for_it(
    gpu: Gpu, linux: str, windows: str
) -> None:
    assert start.torch_choice("Linux", "x86_64", gpu).name == linux
    assert start.torch_choice("Windows", "AMD64", gpu).name == windows


def test_a_mac_with_apples_chip_gets_plain_torch_and_an_intel_mac_a_refusal() -> None:
    torch = f"torch=={start.pinned('torch')}"
    assert start.torch_choice("Darwin", "arm64", Gpu()).request == (torch,)
    refused = start.torch_choice("Darwin", "x86_64", Gpu())
    assert refused.request == ()
    assert "Intel" in refused.why


def test_a_machine_without_a_card_is_asked_to_fetch_no_cuda() -> None:
    linux = start.torch_choice("Linux", "x86_64", Gpu())
    assert linux.request[0] == f"torch=={start.pinned('torch')}+cpu"
    assert "https://download.pytorch.org/whl/cpu" in linux.request
    assert linux.plain_will_do
    # PyPI's torch for Windows is the CPU build, so PyTorch's index is not needed
    assert start.torch_choice("Windows", "AMD64", Gpu()).request == (
        f"torch=={start.pinned('torch')}",
    )


def test_a_cuda_build_is_asked_for_by_its_exact_name_so_no_other_can_slip_in() -> None:
    build = start.torch_choice("Windows", "AMD64", nvidia("RTX 4090", (8, 9), 580))
    assert build.request == (
        f"torch=={start.pinned('torch')}+cu130",
        "--extra-index-url",
        start_index("cu130"),
    )
    assert not build.plain_will_do


def start_index(name: str) -> str:
    return f"https://download.pytorch.org/whl/{name}"


@given(
    capability=st.tuples(st.integers(3, 12), st.integers(0, 9)),
    driver=st.integers(300, 700),
    system=st.sampled_from(["Linux", "Windows"]),
)
@settings(max_examples=200, deadline=None)
def test_a_chosen_cuda_build_has_kernels_for_the_card(
    capability: tuple[int, int], driver: int, system: str
) -> None:
    name = start.torch_choice(system, "x86_64", nvidia("any", capability, driver)).name
    kernels = {
        "cu126": ((5, 0), (9, 9)),
        "cu130": ((7, 5), (12, 9)),
        "cpu": ((0, 0), (4, 9)),
    }
    oldest, newest = kernels[name]
    assert oldest <= capability <= newest
    if name == "cu130" and capability < (10, 0):
        # a newer card has no other build: there the driver must follow
        assert driver >= start.CUDA_13_DRIVER


def test_the_users_own_choice_overrules_the_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BLOCKRATE_TORCH", "rocm7.2")
    assert start.chosen_build().request[0].endswith("+rocm7.2")
    monkeypatch.setenv("BLOCKRATE_TORCH", "cuda")
    with pytest.raises(
        SystemExit, match=r"BLOCKRATE_TORCH is 'cuda'. It can be cpu, cu126"
    ):
        start.chosen_build()


def test_nvidia_smi_is_understood_also_with_two_cards_or_an_old_driver() -> None:
    assert start.nvidia_gpu("NVIDIA GeForce RTX 4090, 580.65.06, 8.9\n") == nvidia(
        "NVIDIA GeForce RTX 4090", (8, 9), 580
    )
    two = "Quadro P400, 595.71, 6.1\nNVIDIA RTX PRO 6000, 595.71, 12.0\n"
    assert start.nvidia_gpu(two) == nvidia("NVIDIA RTX PRO 6000", (12, 0), 595)
    assert start.nvidia_gpu("GeForce GTX 1080, 390.157\n") == nvidia(
        "GeForce GTX 1080", (0, 0), 390
    )
    assert start.nvidia_gpu("No devices were found\n") == Gpu()


def test_amds_driver_files_are_understood_and_a_known_card_wins() -> None:
    processor, raphael, navi31 = (
        f"simd_count 0\ngfx_target_version {number}\n" for number in (0, 100306, 110000)
    )
    assert start.amd_gpu([processor, raphael, navi31]) == Gpu("amd", "gfx1100")
    assert start.amd_gpu([processor, raphael]) == Gpu("amd", "gfx1036")
    assert start.amd_gpu(["gfx_target_version 90010\n"]) == Gpu("amd", "gfx90a")
    assert start.amd_gpu([processor]) == Gpu()


@pytest.mark.parametrize(
    ("gpu", "build", "torch", "cure"),
    [
        (
            nvidia("RTX 5090", (12, 0), 570),
            "cu130",
            "2.13.0+cu130",
            "driver 570 is too old .* Update it to 580",
        ),
        (
            nvidia("RTX 3060", (8, 6), 470),
            "cu126",
            "2.13.0+cu126",
            "Update it to 525 or newer",
        ),
        (
            nvidia("RTX 4090", (8, 9), 580),
            "pypi",
            "2.13.0+cpu",
            "has no CUDA, .* Set BLOCKRATE_TORCH=cu130",
        ),
        (
            nvidia("RTX 4090", (8, 9), 580),
            "cu130",
            "2.13.0+cu130",
            "CUDA_VISIBLE_DEVICES",
        ),
        (
            Gpu("amd", "gfx1100"),
            "rocm7.2",
            "2.13.0+rocm7.2",
            "usermod -aG render,video",
        ),
    ],
)
def test_a_card_that_torch_cannot_use_is_a_sentence_with_the_cure(
    gpu: Gpu, build: str, torch: str, cure: str
) -> None:
    problem = start.card_problem(gpu, build, torch, False)
    assert re.search(cure, problem)
    assert "\n" not in problem


def test_a_working_card_or_the_cpu_by_choice_needs_no_warning() -> None:
    assert (
        start.card_problem(
            nvidia("RTX 4090", (8, 9), 580), "cu130", "2.13.0+cu130", True
        )
        is None
    )
    assert start.card_problem(Gpu(), "cpu", "2.13.0+cpu", False) is None
    assert (
        start.card_problem(nvidia("Tesla K80", (3, 7), 470), "cpu", "2.13.0+cpu", False)
        is None
    )
