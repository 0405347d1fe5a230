"""The pinned versions are those that are tested."""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution, version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.lock import EXTRAS, TORCHS_OWN
from support.start_module import ROOT, start


def locked() -> dict[str, str]:
    """The lines of each package of the lock, by name."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return dict(start.lock_blocks(text))


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
        *(extras[name] for name in EXTRAS),
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


def test_the_lock_names_each_pinned_version_with_the_hashes_of_its_files() -> None:
    versions = {
        name: lines.partition("==")[2].split()[0] for name, lines in locked().items()
    }
    expected = {name: number for name, number in pins().items() if name != "torch"}
    assert versions == expected
    without = [
        name for name, lines in locked().items() if "--hash=sha256:" not in lines
    ]
    assert not without


def test_the_lock_leaves_torch_and_its_files_for_a_card_out() -> None:
    assert not [name for name in locked() if TORCHS_OWN.match(name)]


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


def test_nothing_older_than_what_is_tested_is_allowed() -> None:
    """Else pip may keep a version with a hole that the tested one has not: peft ran modules that a model named."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    requirements = [Requirement(line) for group in groups for line in group]
    assert len(requirements) > 20
    for requirement in requirements:
        tested = pins().get(canonicalize_name(requirement.name))
        if tested is None:
            assert requirement.name == "pywebview"  # of `--native`, which has no tests
            continue
        least = [part for part in requirement.specifier if part.operator == ">="]
        assert [part.version for part in least] == [tested], requirement
        assert requirement.specifier.contains(tested)
