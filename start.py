#!/usr/bin/env python3
"""Set blockrate up in .venv beside this file (the first time, or when something changed), then run it.

    python start.py demo [--fresh]     teach a small Flux a style and see what it draws, 3 minutes
    python start.py ui [CONFIG]        open the app in the browser: choose a model, draw the rates, train
    python start.py train CONFIG ...   train what a config says; likewise probe, plan, inspect, compare, draw, queue
    python start.py stop RUN           let a run finish its step, save and stop; status RUN: what it is doing
    python start.py rates RUN FILE     give a run that trains other block rates
    python start.py test [...]         all tests (pytest's arguments may follow); --quick: no browser, no training
    python start.py check              lint, formatting and types
    python start.py soak               the tests that run for hours
    python start.py setup              make .venv anew
    python start.py lock               write requirements.lock anew, after constraints.txt or pyproject.toml changed

Needs Python 3.11 or newer and nothing else. The torch build follows the card; BLOCKRATE_TORCH overrules it: cpu, cu126,
cu130, rocm7.2, or pypi for plain torch from your own index. pip's own settings (PIP_INDEX_URL, ...) are kept.
Every package but torch must be the very file that requirements.lock knows by its hash; BLOCKRATE_HASHES=off goes by
version alone, for an index of your own that builds its packages itself.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - said before anything newer is needed: this file parses on Python 3.6
    cure = "Install one from https://www.python.org/downloads and use it: `python3.12 start.py` (Windows: `py -3.12`)."
    sys.exit(
        f"error: blockrate needs Python 3.11 or newer, this is {sys.version.split()[0]}. {cure}"
    )

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = str(VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
# files of the working directory are data, and never taken for code
SAFELY = ("-P",)
# written last: without it the set-up is unfinished
STAMP = VENV / "blockrate-setup.json"
CONSTRAINTS = ROOT / "constraints.txt"
# the same versions, with the hashes of their files
LOCK = ROOT / "requirements.lock"
# commands of the package
BLOCKRATE = (
    "demo",
    "train",
    "plan",
    "inspect",
    "compare",
    "draw",
    "probe",
    "queue",
    "rates",
    "status",
    "stop",
    "ui",
)
CHECKS = (
    "ruff check",
    "ruff format --check",
    "oxfmt --check src/blockrate/ui/static tests/support/screens.js",
    "mypy",
    # tells, and fails nothing
    "python tests/support/sizes.py",
)
# what neither a browser nor seconds of training are needed for
QUICK = "not browser and not engine and not soak"
# file by file, in the order that tests/conftest.py puts them in; while one waits for a browser two are at work
IN_THREE_PROCESSES = [
    *("--numprocesses", "3"),
    *("--dist", "loadfile", "--no-loadscope-reorder"),
]
# a Windows console has another encoding
ENVIRONMENT = {"PYTHONUTF8": "1", **os.environ}
NVIDIA_SMI = shutil.which("nvidia-smi") or shutil.which("/usr/lib/wsl/lib/nvidia-smi")


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit code is the command's own."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    if command not in (*BLOCKRATE, "test", "check", "soak", "setup", "lock"):
        say(
            f"error: start.py has no command {command!r}. `python start.py --help` lists them."
        )
        return 2
    set_up(again=command == "setup")
    if command in BLOCKRATE:
        return run([*SAFELY, "-m", "blockrate", command, *rest])
    os.chdir(ROOT)
    if command == "test":
        return test(rest)
    if command == "soak":
        return run(["-m", "pytest", "-m", "soak", *rest])
    if command == "lock":
        os.chdir(ROOT / "tests")
        return run(["-m", "support.lock"])
    return check() if command == "check" else 0


def run(arguments: Sequence[str]) -> int:
    """Become .venv's Python with these arguments (on Windows: start it, wait, hand on its exit code)."""
    if sys.platform != "win32":
        os.execve(PYTHON, [PYTHON, *arguments], ENVIRONMENT)
    process = subprocess.Popen([PYTHON, *arguments], env=ENVIRONMENT)
    while True:
        # the child gets Ctrl-C too, and decides
        with contextlib.suppress(KeyboardInterrupt):
            return process.wait()


def test(arguments: Sequence[str]) -> int:
    """All tests, in three processes; with arguments what pytest makes of them; --quick without browsers and engines."""
    words = [word for word in arguments if word != "--quick"]
    options = [] if words else IN_THREE_PROCESSES
    if "--quick" in arguments:
        return run(["-m", "pytest", *options, "-m", QUICK, *words])
    command = [PYTHON, "tests/support/browsers.py"]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    if found.returncode:
        return found.returncode
    ENVIRONMENT["BLOCKRATE_BROWSER"] = found.stdout.strip()
    return run(["-m", "pytest", *options, *words])


def check() -> int:
    """Lint, formatting and types, each by name; 0 when all pass."""
    failed = []
    for name in CHECKS:
        say(f"== {name}")
        program, *words = name.split()
        command = [str(Path(PYTHON).with_name(program)), *words]
        if subprocess.call(command, env=ENVIRONMENT):
            failed.append(name)
    say(f"== failed: {', '.join(failed)}" if failed else "== all checks passed")
    return 1 if failed else 0


def set_up(*, again: bool = False) -> None:
    """Make .venv what requirements.lock, pyproject.toml, this Python, this card ask for; at once if it already is."""
    if is_current() and not again:
        return
    if importlib.util.find_spec("ensurepip") is None:
        package = f"python3.{sys.version_info[1]}-venv"
        cure = f"Debian, Ubuntu: `sudo apt install {package}`. Windows: Python from python.org."
        sys.exit(f"error: this Python has no ensurepip, which .venv needs. {cure}")
    with (ROOT / ".venv.lock").open("w") as lock:
        if sys.platform != "win32":  # which does not let files in use be replaced
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        if is_current() and not again:  # another start.py did it while this one waited
            return
        build = chosen_build()
        made_by = f"Python {sys.version_info[:2]} on {platform.machine()} in {ROOT} with torch {build.name}"
        fresh = (
            again
            or read_stamp().get("made_by") != made_by
            or not os.path.exists(PYTHON)
        )
        # to make it anew would empty what it leads to
        if fresh and VENV.is_symlink():
            sys.exit(f"error: {VENV} is a link. Remove it and start again.")
        STAMP.unlink(missing_ok=True)
        # pip finds everything before it touches anything, so a failed update need not be made anew
        if not fresh:
            STAMP.write_text(json.dumps({"made_by": made_by}), encoding="utf-8")
        install(build, fresh=fresh)
        STAMP.write_text(
            json.dumps({"made_by": made_by, "key": set_up_key()}), encoding="utf-8"
        )


def install(build: "TorchBuild", *, fresh: bool) -> None:
    """The four steps of a set-up, told as they go; ends the program with a sentence when one fails."""
    say(
        f"Setting up in {VENV}: only the first time, and when something changed.\nStep 1 of 4: a Python of its own"
    )
    if fresh:
        import venv

        try:
            venv.create(VENV, clear=True, with_pip=True)
        except (OSError, subprocess.SubprocessError) as problem:
            sys.exit(
                f"error: {VENV} cannot be made anew ({problem}). Close what uses it and start again."
            )
    pip(*packages("pip", "setuptools"))
    say(f"Step 2 of 4: diffusers and the rest, {how_proven()}")
    pip(*packages())
    say(
        f"Step 3 of 4: torch {pinned('torch')}, by its version, build {build.name}: {build.why}"
    )
    if not pip(*build.request, may_fail=build.plain_will_do):
        say(
            "  PyTorch's own index cannot be had: torch comes from the package index (maybe with gigabytes of CUDA)."
        )
        pip(f"torch=={pinned('torch')}")
    say("Step 4 of 4: blockrate itself, and a look at torch and the card")
    pip("--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    warning = card_problem(find_gpu(), build.name, *torch_report())
    say(f"warning: {warning}" if warning else "  done")


def hashes_count() -> bool:
    """Whether a package must be a file that the lock knows. BLOCKRATE_HASHES overrules it."""
    word = os.environ.get("BLOCKRATE_HASHES", "")
    if word not in ("", "on", "off"):
        sys.exit(f"error: BLOCKRATE_HASHES is {word!r}. It can be on or off.")
    return word != "off"


def how_proven() -> str:
    """How a package is known to be the one that was tested."""
    return (
        f"by the hashes of {LOCK.name}"
        if hashes_count()
        else "by version alone: BLOCKRATE_HASHES is off"
    )


def packages(*names: str) -> tuple[str, ...]:
    """What pip is asked for, to install these packages of the lock, or all of it: whole files, nothing built here."""
    wanted = LOCK
    if names or not hashes_count():
        wanted = VENV / "wanted.txt"
        blocks = lock_blocks(LOCK.read_text(encoding="utf-8"))
        chosen = [text for name, text in blocks if name in names or not names]
        if not hashes_count():
            chosen = [re.sub(r" \\\n|    --hash=\S+", "", text) for text in chosen]
        wanted.write_text("".join(chosen), encoding="utf-8")
    proof = ("--require-hashes", "--only-binary", ":all:") if hashes_count() else ()
    return (*proof, "--no-deps", "--requirement", str(wanted))


def lock_blocks(text: str) -> list[tuple[str, str]]:
    """Each package of a lock, by name, with its lines."""
    blocks = re.split(r"(?m)^(?=[A-Za-z])", text)
    return [(block.partition("==")[0], block) for block in blocks if "==" in block]


def pip(*arguments: str, may_fail: bool = False) -> bool:
    """Whether `pip install` did it, in silence. A failure that may not be shows pip's words and ends with the cure."""
    command = [
        PYTHON,
        *SAFELY,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "install",
        "--progress-bar",
        "off",
    ]
    if "--require-hashes" not in arguments:
        command += ["-c", str(CONSTRAINTS)]
    command += arguments
    nothing = subprocess.DEVNULL
    pipe = subprocess.PIPE
    same = subprocess.STDOUT
    process = subprocess.Popen(
        command, stdin=nothing, stdout=pipe, stderr=same, env=ENVIRONMENT
    )
    words = None
    started = time.monotonic()
    while words is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            words = process.communicate(timeout=1)[0].decode(errors="replace")
        if sys.stderr.isatty():
            print(
                f"  {time.monotonic() - started:.0f} s",
                end="\r",
                file=sys.stderr,
                flush=True,
            )
    say(
        f"  {'failed' if process.returncode else 'done'} after {time.monotonic() - started:.0f} s"
    )
    if process.returncode and not may_fail:
        say("\n".join(words.splitlines()[-40:]))
        cure = pip_cure(
            words, sys.version_info[:2], hashed="--require-hashes" in arguments
        )
        sys.exit(f"error: a package could not be installed. {cure}")
    return process.returncode == 0


def pip_cure(words: str, python: tuple[int, int], *, hashed: bool = False) -> str:
    """What to do when pip ended with these words. ``hashed``: files had to be those of the lock."""
    if re.search(r"No space left|Errno 28|not enough space", words):
        return "The disk is full: set-up needs about 3 GB, with CUDA or ROCm 12 GB. Free some and start again."
    # pip's hint: the registry switch is off, and a name had over 260 signs
    if "enable-long-paths" in words:
        switch = r"reg add HKLM\SYSTEM\CurrentControlSet\Control\FileSystem /v LongPathsEnabled /t REG_DWORD /d 1 /f"
        return f"{ROOT} is too long a path for Windows. Move the folder up, or type as administrator: {switch}"
    if "DO NOT MATCH THE HASHES" in words:
        return (
            f"The package index gave another file than the one that {LOCK.name} names. If it is an index of your own "
            "(PIP_INDEX_URL) that builds packages itself, set BLOCKRATE_HASHES=off; otherwise do not install it."
        )
    if python > (3, 14):
        return f"The pinned versions are for Python 3.11 to 3.14, this is {python[0]}.{python[1]}: use one of those."
    if re.search(
        r"Failed to establish a new connection|getaddrinfo|Proxy|ConnectTimeout|SSLError|unreachable",
        words,
    ):
        return "The package index cannot be reached: look at the network (HTTPS_PROXY, PIP_INDEX_URL) and start again."
    if "No matching distribution" in words and hashed:
        return (
            "The package index has not got this version ready to install here. If it is an index of your own, "
            "set BLOCKRATE_HASHES=off: then what has to be built is built."
        )
    return "pip's own words are above. `python start.py setup` tries again."


def is_current() -> bool:
    """Whether a finished set-up is there and is what is asked for now."""
    return os.path.exists(PYTHON) and read_stamp().get("key") == set_up_key()


def read_stamp() -> dict[str, str]:
    """What the last finished set-up wrote; empty without one."""
    try:
        return dict(json.loads(STAMP.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def set_up_key() -> str:
    """A hash of all that decides what is installed, from small files alone: neither pip nor nvidia-smi is started."""
    facts = [
        platform.machine(),
        str(sys.version_info[:2]),
        str(ROOT),
        os.environ.get("BLOCKRATE_TORCH", ""),
        os.environ.get("BLOCKRATE_HASHES", ""),
    ]
    facts += [
        path.read_text(encoding="utf-8")
        for path in (CONSTRAINTS, LOCK, ROOT / "pyproject.toml")
    ]
    facts += [
        f"{NVIDIA_SMI} {os.stat(NVIDIA_SMI).st_mtime}" if NVIDIA_SMI else "",
        str(os.path.exists("/dev/kfd")),
    ]
    facts += sorted(str(card) for card in Path("/proc/driver/nvidia/gpus").glob("*"))
    facts += [
        path.read_text(encoding="utf-8")
        for path in Path("/proc/driver/nvidia").glob("version")
    ]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


# the oldest driver of each major version (NVIDIA, CUDA release notes)
CUDA_12_DRIVER = 525
CUDA_13_DRIVER = 580
# PYTORCH_ROCM_ARCH of torch 2.13, less Vega (gfx900, gfx906) which ROCm 7's own libraries have dropped
ROCM_TARGETS = [
    "gfx" + name
    for name in re.findall(
        r"\w+", "908 90a 942 950 1030 1100 1101 1102 1150 1151 1200 1201"
    )
]


class Gpu(NamedTuple):
    """The best card, as its driver tells it."""

    vendor: str = ""  # nvidia, amd; empty: no driver answers for a card
    name: str = ""  # NVIDIA: the product; AMD: the target, such as gfx1100
    capability: tuple[int, int] = (0, 0)  # NVIDIA; (0, 0): the driver is too old to say
    driver: int = 0  # NVIDIA, major version


class TorchBuild(NamedTuple):
    """A build of torch, what pip is asked for (nothing: there is none), and why this one."""

    name: str
    request: tuple[str, ...]
    why: str
    plain_will_do: bool = False  # when PyTorch's index cannot be had


def torch_choice(system: str, machine: str, gpu: Gpu) -> TorchBuild:
    """The build of torch 2.13 that fits. It is made for CUDA 12.6, 13.0 and 13.2, ROCm 7.2 (Linux) and the CPU."""
    name = "cpu"
    why = "no driver of an NVIDIA card (or, on Linux, an AMD card) answers"
    if system == "Darwin" and machine != "arm64":
        return TorchBuild(
            "none", (), "torch has not been made for Intel Macs since 2.2"
        )
    if system == "Darwin":
        return TorchBuild(
            "pypi", pip_request("pypi"), "it uses Apple's GPU through Metal (mps)"
        )
    if gpu.vendor == "nvidia":
        name, why = cuda_choice(gpu)
    elif gpu.vendor == "amd" and system == "Linux" and gpu.name in ROCM_TARGETS:
        name = "rocm7.2"
        why = f"the AMD card is a {gpu.name}"
    elif gpu.vendor == "amd":
        why = f"PyTorch has no build for AMD's {gpu.name} on {system}"
    if system == "Windows" and name == "cpu":
        return TorchBuild(name, pip_request("pypi"), why)
    return TorchBuild(
        name,
        pip_request(name),
        why,
        plain_will_do=system == "Linux" and name in ("cpu", "cu130"),
    )


def cuda_choice(gpu: Gpu) -> tuple[str, str]:
    """Build and reason. CUDA 12.6 has kernels for Maxwell (5.0) to Hopper (9.0), 13.0 for Turing (7.5) to Blackwell."""
    card = f"{gpu.name} ({gpu.capability[0]}.{gpu.capability[1]}, driver {gpu.driver})"
    if (0, 0) < gpu.capability < (5, 0):
        return "cpu", f"{card} is too old for every CUDA build"
    if gpu.capability >= (10, 0):
        return "cu130", f"{card} needs CUDA 13"
    if gpu.capability < (7, 5):
        return "cu126", f"{card} is older than Turing, which CUDA 13 starts with"
    if gpu.driver < CUDA_13_DRIVER:
        return "cu126", f"{card}: CUDA 13 starts with driver {CUDA_13_DRIVER}"
    return "cu130", card


def pip_request(name: str) -> tuple[str, ...]:
    """What pip is asked for: exactly this build from PyTorch's index, or plain torch from the user's own."""
    if name == "pypi":
        return (f"torch=={pinned('torch')}",)
    request = (
        f"torch=={pinned('torch')}+{name}",
        "--extra-index-url",
        f"https://download.pytorch.org/whl/{name}",
    )
    # The CPU build needs nothing else from there, so an index that cannot be reached is asked once and given up.
    return (
        (*request, "--no-deps", "--retries", "1", "--timeout", "15")
        if name == "cpu"
        else request
    )


def chosen_build() -> TorchBuild:
    """The build for this machine, or the one that BLOCKRATE_TORCH names."""
    name = os.environ.get("BLOCKRATE_TORCH", "")
    if name and not re.fullmatch(r"pypi|cpu|cu\d{3}|rocm\d\.\d", name):
        sys.exit(
            f"error: BLOCKRATE_TORCH is {name!r}. It can be cpu, cu126, cu130, rocm7.2 or pypi."
        )
    if name:
        return TorchBuild(name, pip_request(name), "BLOCKRATE_TORCH asks for it")
    build = torch_choice(platform.system(), platform.machine(), find_gpu())
    return (
        build
        if build.request
        else sys.exit(
            f"error: {build.why}. Use a Mac with Apple's chip, Linux or Windows."
        )
    )


def card_problem(gpu: Gpu, build: str, version: str, works: bool) -> str | None:
    """Why torch does not use the card that is here, with the cure. After a driver update the next start looks again."""
    oldest = CUDA_12_DRIVER if build == "cu126" else CUDA_13_DRIVER
    if works or not gpu.vendor or build == "cpu":
        return None  # on the CPU by choice: step 2 has said why
    if gpu.vendor == "amd":
        return f"torch {version} cannot open the AMD card. `sudo usermod -aG render,video $USER` and log in again."
    if gpu.driver < oldest:
        return f"{gpu.name}: its driver {gpu.driver} is too old for torch {version}. Update it to {oldest} or newer."
    if "+cu" not in version:
        return f"torch {version} has no CUDA, so {gpu.name} idles. Set BLOCKRATE_TORCH={cuda_choice(gpu)[0]} and start."
    return f"torch {version} does not find {gpu.name}. Look at CUDA_VISIBLE_DEVICES and nvidia-smi, or restart."


def torch_report() -> tuple[str, bool]:
    """Version of the installed torch, and whether it can use a card."""
    code = "import torch; print(torch.__version__, torch.cuda.is_available())"
    done = subprocess.run(
        [PYTHON, *SAFELY, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    if done.returncode:
        cure = "On Windows it needs https://aka.ms/vs/17/release/vc_redist.x64.exe. Then: python start.py setup"
        sys.exit(f"{done.stderr}\nerror: torch is installed but does not start. {cure}")
    version, works = done.stdout.split()[-2:]
    return version, works == "True"


def find_gpu() -> Gpu:
    """The best card that a driver answers for: NVIDIA's tool, or AMD's compute driver on Linux."""
    # old drivers do not know the third
    for fields in ("name,driver_version,compute_cap", "name,driver_version"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = [
                NVIDIA_SMI or "nvidia-smi",
                f"--query-gpu={fields}",
                "--format=csv,noheader",
            ]
            return nvidia_gpu(
                subprocess.run(
                    command, capture_output=True, text=True, timeout=30, check=True
                ).stdout
            )
    nodes = Path("/sys/class/kfd/kfd/topology/nodes").glob("*/properties")
    return amd_gpu([path.read_text() for path in nodes if os.access(path, os.R_OK)])


def nvidia_gpu(answer: str) -> Gpu:
    """The most capable card of nvidia-smi's answer, a line `name, driver, capability` for each."""
    cards = []
    for name, driver, major, minor in re.findall(
        r"(?m)^(.+?), (\d+)[\d.]*(?:, (\d+)\.(\d+))?", answer
    ):
        cards.append(
            Gpu("nvidia", name, (int(major or 0), int(minor or 0)), int(driver))
        )
    return max(cards, key=lambda card: card.capability, default=Gpu())


def amd_gpu(properties: Sequence[str]) -> Gpu:
    """The first card in the compute driver's files that torch knows, else the first; a processor has version 0."""
    numbers = [
        int(number)
        for text in properties
        for number in re.findall(r"gfx_target_version (\d+)", text)
    ]
    names = [
        f"gfx{number // 10000}{number // 100 % 100:x}{number % 100:x}"
        for number in numbers
        if number
    ]
    return (
        Gpu("amd", next((name for name in names if name in ROCM_TARGETS), names[0]))
        if names
        else Gpu()
    )


def say(words: str) -> None:
    """Print at once, on stderr: stdout belongs to the command."""
    print(words, file=sys.stderr, flush=True)


def pinned(package: str) -> str:
    """The version that constraints.txt gives a package."""
    return str(
        re.findall(rf"(?m)^{package}==(\S+)", CONSTRAINTS.read_text(encoding="utf-8"))[
            0
        ]
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
    sys.exit(130)
