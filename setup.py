"""Puts the examples into the package that pip installs; all else stands in pyproject.toml.

In a clone they stay where its reader finds them, beside the source.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithExamples(build_py):
    """What copies the package, and then the examples into it."""

    def run(self) -> None:
        """Copy both; an editable installation runs from the clone and has them."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "blockrate", "examples")
            shutil.copytree("examples", target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithExamples})
