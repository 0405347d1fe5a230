"""What pip makes of the source: a package that has its presets, its examples and all else it reads."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = (
    "src",
    "examples",
    "docs",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
# a child of its own, so that the package is imported and not the source
PYTHON = [sys.executable, "-X", "utf8"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as pip installs it, made of a copy of the source."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir")
    done(["-m", "pip", "wheel", *options, str(source / "made"), str(source)], source)
    (wheel,) = (source / "made").glob("*.whl")
    folder = tmp_path_factory.mktemp("package")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(folder)
    return folder


def done(words: Sequence[str], folder: Path, package: Path | None = None) -> str:
    """What Python prints, in a folder and with a package."""
    environment = dict(os.environ)
    if package:
        environment["PYTHONPATH"] = str(package)
    told = subprocess.run(
        [*PYTHON, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert told.returncode == 0, told.stderr
    return told.stdout


def test_it_holds_every_file_of_the_source_and_the_examples(package: Path) -> None:
    for folder in ("src/blockrate", "examples"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(ROOT / folder)
                inside = "examples" if folder == "examples" else ""
                made = package / "blockrate" / inside / name
                assert made.read_bytes() == path.read_bytes()


def test_its_help_pages_are_those_of_the_documentation(
    package: Path, tmp_path: Path
) -> None:
    code = """
from blockrate.ui.help_pages import help_files
print(*(file.read_text("utf-8") for file in help_files().values()), sep="", end="")
"""
    pages = [file.read_text("utf-8") for file in sorted((ROOT / "docs").glob("*.md"))]
    assert len(pages) > 10
    assert done(["-c", code], tmp_path, package) == "".join(pages)


def test_its_examples_are_found_by_name_with_their_pictures(
    package: Path, tmp_path: Path
) -> None:
    code = """
import json
from blockrate.config.presets import clone, named, read
print(json.dumps({"clone": str(clone()), "names": [*named()], "demo": read("demo")}))
"""
    facts = json.loads(done(["-c", code], tmp_path, package))
    assert facts["clone"] == "None"
    assert {"flux_lora", "demo", "lora_style"} <= set(facts["names"])
    pictures = package / "blockrate" / "examples" / "pictograms"
    paths = [Path(concept["path"]) for concept in facts["demo"]["concepts"]]
    assert paths == [pictures / "ink", pictures / "new"]
    plan = done(["-m", "blockrate", "plan", "demo", "--json"], tmp_path, package)
    assert json.loads(plan)["first_trained_block"] == "single_block_0"
