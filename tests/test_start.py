"""start.py: the torch build for a card, a set-up that is quick, complete or told, and plain sentences when it fails."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def load_start() -> ModuleType:
    spec = importlib.util.spec_from_file_location("start", ROOT / "start.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


start = load_start()
Gpu = start.Gpu


def nvidia(name: str, capability: tuple[int, int], driver: int) -> Gpu:
    return Gpu("nvidia", name, capability, driver)


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


# -- set-up ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as after `git clone`; start.py works on it, and `install` makes an empty .venv."""
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    python = tmp_path / ".venv" / "python"
    monkeypatch.setattr(start, "ROOT", tmp_path)
    monkeypatch.setattr(start, "CONSTRAINTS", tmp_path / "constraints.txt")
    monkeypatch.setattr(start, "STAMP", tmp_path / ".venv" / "stamp.json")
    monkeypatch.setattr(start, "PYTHON", str(python))
    monkeypatch.setattr(start, "find_gpu", Gpu)
    monkeypatch.delenv("BLOCKRATE_TORCH", raising=False)
    return tmp_path


@pytest.fixture
def installs(house: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What `install` was called with: True = a new .venv."""
    calls: list[bool] = []

    def install(build: object, *, fresh: bool) -> None:
        calls.append(fresh)
        (house / ".venv").mkdir(exist_ok=True)
        (house / ".venv" / "python").touch()

    monkeypatch.setattr(start, "install", install)
    return calls


def test_an_unchanged_set_up_starts_nothing(
    house: Path, installs: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    start.set_up()
    (house / ".venv.lock").unlink()
    for name in ("run", "Popen", "call"):
        monkeypatch.setattr(subprocess, name, pytest.fail)
    start.set_up()
    assert installs == [True]
    assert not (house / ".venv.lock").exists()


def test_changed_versions_are_installed_into_the_same_venv(
    house: Path, installs: list[bool]
) -> None:
    start.set_up()
    (house / "constraints.txt").write_text("torch==2.13.0\nnumpy==2.4.6\n")
    start.set_up()
    (house / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    start.set_up()
    start.set_up()
    assert installs == [True, False, False]


def test_another_python_another_card_or_the_word_setup_make_a_new_venv(
    installs: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    start.set_up()
    monkeypatch.setattr(sys, "version_info", (3, 99, 0, "final", 0))
    start.set_up()
    monkeypatch.setenv("BLOCKRATE_TORCH", "cu126")
    start.set_up()
    start.set_up(again=True)
    assert installs == [True, True, True, True]


def test_an_updated_driver_is_looked_at_again(
    house: Path, installs: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = house / "nvidia-smi"
    tool.touch()
    monkeypatch.setattr(start, "NVIDIA_SMI", str(tool))
    monkeypatch.setattr(start, "find_gpu", lambda: nvidia("RTX 4090", (8, 9), 550))
    start.set_up()
    start.set_up()
    assert installs == [True]
    os.utime(tool, (1, 1))
    monkeypatch.setattr(start, "find_gpu", lambda: nvidia("RTX 4090", (8, 9), 580))
    start.set_up()
    assert installs == [True, True]  # CUDA 12.6 gave way to CUDA 13


def test_a_moved_folder_is_set_up_anew(
    house: Path, installs: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    start.set_up()
    monkeypatch.setattr(start, "ROOT", house / "elsewhere")
    (house / "elsewhere").mkdir()
    (house / "elsewhere" / "pyproject.toml").write_text("[project]\n")
    start.set_up()
    assert installs == [True, True]


def test_a_first_set_up_that_was_killed_is_made_anew(
    house: Path, installs: list[bool]
) -> None:
    start.set_up()
    (house / ".venv" / "stamp.json").unlink()
    start.set_up()
    (house / ".venv" / "stamp.json").write_text("{")
    start.set_up()
    assert installs == [True, True, True]


def test_a_set_up_from_scratch_that_was_stopped_does_not_pass_for_a_finished_one(
    installs: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    start.set_up()
    install = start.install
    monkeypatch.setattr(
        start, "install", lambda build, fresh: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        start.set_up(again=True)
    monkeypatch.setattr(start, "install", install)
    start.set_up()
    assert installs == [True, True]


def test_an_update_that_failed_is_repeated_in_place(
    house: Path, installs: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    start.set_up()
    (house / "constraints.txt").write_text("torch==2.13.0\nnumpy==2.4.6\n")
    install = start.install
    monkeypatch.setattr(start, "install", lambda build, fresh: sys.exit("no network"))
    with pytest.raises(SystemExit, match="no network"):
        start.set_up()
    assert not start.is_current()
    monkeypatch.setattr(start, "install", install)
    start.set_up()
    assert installs == [True, False]
    assert start.is_current()


def test_without_pytorchs_index_the_cpu_machine_takes_plain_torch(
    house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def pip(*arguments: str, may_fail: bool = False) -> bool:
        asked.append(arguments[0])
        assert may_fail == arguments[0].endswith("+cpu")
        return not may_fail

    monkeypatch.setattr(start, "pip", pip)
    monkeypatch.setattr(start, "torch_report", lambda: ("2.13.0+cpu", False))
    start.install(start.torch_choice("Linux", "x86_64", Gpu()), fresh=False)
    assert asked == [
        "--upgrade",
        "torch==2.13.0+cpu",
        "torch==2.13.0",
        "--no-build-isolation",
    ]
    assert [
        line[:11]
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("Step")
    ] == [f"Step {step} of 4" for step in (1, 2, 3, 4)]


def test_a_cuda_build_that_cannot_be_had_is_not_replaced_by_another(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(
        start, "pip", lambda *arguments, may_fail=False: asked.append(may_fail) or True
    )
    monkeypatch.setattr(start, "torch_report", lambda: ("2.13.0+cu126", True))
    start.install(
        start.torch_choice("Linux", "x86_64", nvidia("GTX 1080", (6, 1), 580)),
        fresh=False,
    )
    assert asked == [False, False, False]


def test_pips_failure_shows_its_words_and_ends_with_the_cure(
    house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(start, "PYTHON", sys.executable)
    assert (
        start.pip(
            "--no-index",
            "--find-links",
            str(house),
            "no-such-package-anywhere",
            may_fail=True,
        )
        is False
    )
    capsys.readouterr()
    with pytest.raises(
        SystemExit,
        match=r"^error: a package could not be installed. pip's own words are above",
    ):
        start.pip("--no-index", "--find-links", str(house), "no-such-package-anywhere")
    assert (
        "No matching distribution found for no-such-package-anywhere"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "python", "cure"),
    [
        ("OSError: [Errno 28] No space left on device", (3, 12), "disk is full"),
        (
            "NewConnectionError: Failed to establish a new connection",
            (3, 12),
            "index cannot be reached",
        ),
        (
            "ERROR: No matching distribution found for numpy",
            (3, 15),
            "Python 3.11 to 3.14, this is 3.15",
        ),
        (
            "HINT: see https://pip.pypa.io/warnings/enable-long-paths",
            (3, 12),
            "too long a path .* LongPathsEnabled",
        ),
    ],
)
def test_each_way_pip_fails_has_its_cure(
    words: str, python: tuple[int, int], cure: str
) -> None:
    assert re.search(cure, start.pip_cure(words, python))


def test_a_torch_that_does_not_start_is_told_with_the_cure(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (house / "torch.py").write_text("raise OSError('WinError 126: c10.dll')")
    monkeypatch.setattr(start, "PYTHON", sys.executable)
    monkeypatch.setattr(start, "ENVIRONMENT", {**os.environ, "PYTHONPATH": str(house)})
    with pytest.raises(
        SystemExit,
        match=r"(?s)c10\.dll.*error: torch is installed but does not start.*vc_redist",
    ):
        start.torch_report()


def test_an_old_python_gets_one_sentence_and_can_read_the_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ast.parse((ROOT / "start.py").read_text(encoding="utf-8"), feature_version=(3, 7))
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    with pytest.raises(
        SystemExit,
        match=r"^error: blockrate needs Python 3.11 or newer, this is .* Install one from",
    ):
        load_start()


def test_a_python_without_ensurepip_gets_one_sentence(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        SystemExit, match=r"no ensurepip, which .venv needs.*apt install python3"
    ):
        start.set_up()


# -- the tests' browser ------------------------------------------------------------------------------------------------


def program(folder: Path, name: str, code: int) -> Path:
    """A program on PATH that ends with this code."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\nexit {code}\n")
    (folder / name).chmod(0o755)
    return folder / name


@pytest.fixture
def no_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, and neither apt nor Playwright can help."""
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    monkeypatch.delenv("BLOCKRATE_BROWSER", raising=False)
    monkeypatch.setattr(start, "install_browser", lambda: False)
    monkeypatch.setattr(start, "fetch_browser", lambda: False)
    return tmp_path / "programs"


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere browsers are not found by PATH alone"
)
def test_the_first_browser_that_starts_is_taken(no_browser: Path) -> None:
    program(no_browser, "chromium", 1)  # as Ubuntu's does without its snap
    chrome = program(no_browser, "google-chrome", 0)
    program(no_browser, "microsoft-edge", 0)
    assert start.browser() == str(chrome)


@pytest.mark.parametrize(
    ("system", "place"),
    [
        ("darwin", "Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
        ("win32", r"Microsoft\Edge\Application\msedge.exe"),
    ],
)
def test_browsers_are_found_where_other_systems_keep_programs(
    system: str,
    place: str,
    no_browser: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ProgramFiles(x86)", str(tmp_path))
    monkeypatch.setattr(start, "starts", lambda path: True)
    found = tmp_path / place
    found.parent.mkdir(parents=True, exist_ok=True)
    found.touch()
    assert start.browser() == str(found)


def test_the_users_own_browser_is_not_searched_for(
    no_browser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKRATE_BROWSER", "/opt/brave")
    assert start.browser() == "/opt/brave"


def test_without_a_browser_debians_is_installed_and_else_playwrights_fetched(
    no_browser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "fetch_browser", lambda: True)
    assert start.browser() == ""
    monkeypatch.setattr(
        start, "install_browser", lambda: bool(program(no_browser, "chromium", 0))
    )
    assert start.browser() == str(no_browser / "chromium")


def test_without_any_browser_the_tests_end_with_one_sentence_and_other_commands_do_not(
    no_browser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "set_up", lambda again: None)
    monkeypatch.setattr(start, "run", lambda arguments: 0)
    assert start.main(["demo"]) == start.main(["ui"]) == 0
    with pytest.raises(
        SystemExit,
        match=r"^error: the tests of the app need a browser.* Install Chromium, Chrome",
    ):
        start.main(["test"])


@pytest.mark.skipif(sys.platform == "win32", reason="has no apt and no users by number")
def test_apt_is_asked_only_by_root_or_a_sudo_without_a_password(
    no_browser: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = load_start()
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(
        fresh,
        "succeeds",
        lambda *command, seconds: asked.append(command) or len(asked) > 1,
    )
    assert fresh.install_browser() is False  # no apt-get here
    program(no_browser, "apt-get", 0)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert fresh.install_browser() is True  # the package lists had to be fetched first
    assert [command[:2] for command in asked] == [("sudo", "-n")] * 3
    assert ["install" in command for command in asked] == [True, False, True]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    fresh.install_browser()
    assert "sudo" not in asked[-1]


def test_a_command_that_hangs_or_is_missing_did_not_succeed() -> None:
    assert start.succeeds(sys.executable, "-c", "pass", seconds=60) is True
    assert (
        start.succeeds(sys.executable, "-c", "input(); raise SystemExit(3)", seconds=60)
        is False
    )
    assert (
        start.succeeds(sys.executable, "-c", "import time; time.sleep(60)", seconds=0)
        is False
    )
    assert start.succeeds("no-such-program-anywhere", seconds=60) is False


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (["demo", "--fresh"], ["-m", "blockrate", "demo", "--fresh"]),
        (
            ["train", "x.json", "--set", "seed=1"],
            ["-m", "blockrate", "train", "x.json", "--set", "seed=1"],
        ),
        (["ui"], ["-m", "blockrate", "ui"]),
        (["test", "-x"], ["-m", "pytest", "-x"]),
        (["soak"], ["-m", "pytest", "-m", "soak"]),
    ],
)
def test_each_command_runs_its_module_in_the_venv(
    command: list[str],
    module: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start, "set_up", lambda again: None)
    monkeypatch.setattr(start, "browser", lambda: "/usr/bin/chromium")
    monkeypatch.setattr(start, "ENVIRONMENT", {})
    monkeypatch.setattr(
        start, "run", lambda arguments: started.append(list(arguments)) or 7
    )
    started: list[list[str]] = []
    assert start.main(command) == 7
    assert started == [module]
    told = start.ENVIRONMENT.get("BLOCKRATE_BROWSER")
    assert told == ("/usr/bin/chromium" if command[0] == "test" else None)
    # a config's relative paths are from where the user is; the tests run where they lie
    assert Path.cwd() == (tmp_path if module[1] == "blockrate" else ROOT)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot replace a process")
def test_the_command_takes_over_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []
    monkeypatch.setattr(os, "execve", lambda *call: taken.extend(call) or sys.exit(0))
    with pytest.raises(SystemExit):
        start.run(["-m", "blockrate"])
    assert taken[:2] == [start.PYTHON, [start.PYTHON, "-m", "blockrate"]]
    assert taken[2]["PYTHONUTF8"] == "1"  # type: ignore[index]


def test_check_names_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(start, "set_up", lambda again: None)
    monkeypatch.setattr(
        subprocess, "call", lambda command, env: int("format" in command)
    )
    assert start.main(["check"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "== ruff check",
        "== ruff format --check",
        "== mypy",
        "== failed: ruff format --check",
    ]
    monkeypatch.setattr(subprocess, "call", lambda command, env: 0)
    assert start.main(["check"]) == 0


def test_an_unknown_command_is_one_sentence_and_installs_nothing() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "start.py", "tran"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: start.py has no command 'tran'. `python start.py --help` lists them.\n"
    )


# -- the pinned versions -----------------------------------------------------------------------------------------------


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(name): number
        for name, number in (line.split("==") for line in wanted)
    }


def test_every_package_that_is_installed_for_us_is_pinned_to_the_version_tested() -> (
    None
):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    extras = project["optional-dependencies"]
    # as start.py asks
    groups = [
        project["dependencies"],
        *(extras[name] for name in ("optimizers", "board", "dev")),
    ]
    waiting = [Requirement(line) for group in groups for line in group]
    seen: dict[str, str] = {}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = f"{name}[{','.join(sorted(requirement.extras))}]"
        needed = not requirement.marker or requirement.marker.evaluate()
        if key in seen or not needed:
            continue
        try:
            seen[key] = version(name).partition("+")[0]
        except PackageNotFoundError:
            pytest.fail(f"{name} is required and not installed")
        for line in distribution(name).requires or []:
            inner = Requirement(line)
            extras = ["", *requirement.extras]
            if not inner.marker or any(
                inner.marker.evaluate({"extra": extra}) for extra in extras
            ):
                inner.marker = None
                waiting.append(inner)
    installed = {key.partition("[")[0]: number for key, number in seen.items()}
    assert {name: pins().get(name) for name in installed} == installed


def test_the_pins_keep_the_floors_that_security_advisories_ask_for() -> None:
    floors = {
        "nicegui": "3.12",
        "python-engineio": "4.13.2",
        "starlette": "0.49.1",
        "python-multipart": "0.0.22",
        "torch": "2.10",
        "transformers": "5.3",
        "diffusers": "0.38",
        "safetensors": "0.8",
    }
    for name, floor in floors.items():
        assert Requirement(f"{name}>={floor}").specifier.contains(pins()[name]), name


def test_the_files_for_other_shells_have_the_line_ends_those_need() -> None:
    batch = (ROOT / "start.bat").read_bytes()
    assert batch.count(b"\n") == batch.count(b"\r\n") > 10
    assert b"\r" not in (ROOT / ".ci" / "run").read_bytes()
