"""start.py: a set-up that is quick, complete or told, and plain sentences when it fails."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from support.start_module import ROOT, Gpu, load_start, nvidia, start

LOCKED = """\
# a comment
alpha==1.0 \\
    --hash=sha256:0a \\
    --hash=sha256:0b
pip==26.3 ; sys_platform != 'never' \\
    --hash=sha256:0c
"""


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as after `git clone`; start.py works on it, and `install` makes an empty .venv."""
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    (tmp_path / "requirements.lock").write_text(LOCKED)
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / ".venv").mkdir()
    python = tmp_path / ".venv" / "python"
    monkeypatch.setattr(start, "ROOT", tmp_path)
    monkeypatch.setattr(start, "CONSTRAINTS", tmp_path / "constraints.txt")
    monkeypatch.setattr(start, "LOCK", tmp_path / "requirements.lock")
    monkeypatch.setattr(start, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(start, "STAMP", tmp_path / ".venv" / "stamp.json")
    monkeypatch.setattr(start, "PYTHON", str(python))
    monkeypatch.setattr(start, "find_gpu", Gpu)
    monkeypatch.delenv("BLOCKRATE_TORCH", raising=False)
    monkeypatch.delenv("BLOCKRATE_HASHES", raising=False)
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
    (house / "requirements.lock").write_text("alpha==2.0 --hash=sha256:0d\n")
    start.set_up()
    start.set_up()
    assert installs == [True, False, False, False]


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


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own")
def test_the_environment_of_another_folder_is_not_emptied_through_a_link(
    house: Path, installs: list[bool]
) -> None:
    other = house / "other"
    (house / ".venv").rename(other)
    (other / "kept").touch()
    (house / ".venv").symlink_to(other)
    with pytest.raises(SystemExit, match=r"is a link\. Remove it"):
        start.set_up()
    assert [file.name for file in other.iterdir()] == ["kept"]
    assert installs == []


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
        "--require-hashes",
        "--require-hashes",
        "torch==2.13.0+cpu",
        "torch==2.13.0",
        "--no-deps",
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

    def pip(*arguments: str, may_fail: bool = False) -> bool:
        asked.append(may_fail)
        return True

    monkeypatch.setattr(start, "pip", pip)
    monkeypatch.setattr(start, "torch_report", lambda: ("2.13.0+cu126", True))
    start.install(
        start.torch_choice("Linux", "x86_64", nvidia("GTX 1080", (6, 1), 580)),
        fresh=False,
    )
    assert asked == [False, False, False, False]


def test_pips_failure_shows_its_words_and_ends_with_the_cure(
    house: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(start, "PYTHON", sys.executable)
    broken = str(house / "alpha-1.0-py3-none-any.whl")
    Path(broken).write_text("not a zip file\n")
    assert start.pip("--no-index", broken, may_fail=True) is False
    capsys.readouterr()
    with pytest.raises(
        SystemExit,
        match=r"^error: a package could not be installed. pip's own words are above",
    ):
        start.pip("--no-index", broken)
    assert "alpha" in capsys.readouterr().err


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


def wheel(folder: Path) -> Path:
    """A package that pip can install."""
    path = folder / "alpha-1.0-py3-none-any.whl"
    facts = "alpha-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("alpha.py", "")
        archive.writestr(
            f"{facts}/METADATA", "Metadata-Version: 2.1\nName: alpha\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{facts}/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{facts}/RECORD", "")
    return path


def ask_for_alpha(house: Path, digest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install alpha from this folder alone, as the lock says, and see where it would go."""
    (house / "requirements.lock").write_text(
        f"alpha==1.0 \\\n    --hash=sha256:{digest}\n"
    )
    monkeypatch.setattr(start, "PYTHON", sys.executable)
    start.pip(
        *("--no-index", "--find-links", str(house)),
        *("--target", str(house / "installed")),
        *start.packages(),
    )


def test_a_file_that_the_lock_knows_is_installed(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = sha256(wheel(house).read_bytes()).hexdigest()
    ask_for_alpha(house, digest, monkeypatch)
    assert (house / "installed" / "alpha.py").exists()


def test_another_file_of_the_same_version_is_refused_with_the_cure(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(house)
    with pytest.raises(SystemExit, match=r"another file .* BLOCKRATE_HASHES=off"):
        ask_for_alpha(house, "0" * 64, monkeypatch)
    assert not (house / "installed").exists()
    monkeypatch.setenv("BLOCKRATE_HASHES", "off")
    ask_for_alpha(house, "0" * 64, monkeypatch)
    assert (house / "installed" / "alpha.py").exists()


def test_an_index_without_a_finished_file_is_told_with_the_cure(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        SystemExit, match=r"not got this version .* BLOCKRATE_HASHES=off"
    ):
        ask_for_alpha(house, "0" * 64, monkeypatch)


def test_the_tools_that_install_come_from_the_lock_too(house: Path) -> None:
    words = start.packages("pip", "setuptools")
    assert words[:4] == ("--require-hashes", "--only-binary", ":all:", "--no-deps")
    wanted = Path(words[-1]).read_text()
    assert wanted.split() == [
        "pip==26.3",
        *(";", "sys_platform", "!=", "'never'", "\\"),
        "--hash=sha256:0c",
    ]


def test_without_hashes_versions_and_markers_stay(
    house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKRATE_HASHES", "off")
    *others, path = start.packages()
    assert others == ["--no-deps", "--requirement"]
    assert Path(path).read_text().split("\n")[:2] == [
        "alpha==1.0",
        "pip==26.3 ; sys_platform != 'never'",
    ]


def test_a_word_for_hashes_that_is_not_known_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BLOCKRATE_HASHES", "yes")
    with pytest.raises(SystemExit, match=r"BLOCKRATE_HASHES is 'yes'. It can be on or"):
        start.hashes_count()


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
