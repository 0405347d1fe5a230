"""Puts examples and documentation into the package that pip installs; all else stands in pyproject.toml.

In a clone they stay where their reader finds them, beside the source.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithExamples(build_py):
    """What copies the package, then the examples and the pages of the documentation into it."""

    def run(self) -> None:
        """Copy all; an editable installation runs from the clone and has them."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "blockrate", "examples")
            shutil.copytree("examples", target, dirs_exist_ok=True)
            pages = Path(self.build_lib, "blockrate", "docs")
            pages.mkdir(exist_ok=True)
            for page in Path("docs").glob("*.md"):
                shutil.copy(page, pages)


setup(cmdclass={"build_py": BuildWithExamples})
