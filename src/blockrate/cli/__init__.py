"""The command line."""

from blockrate.cli.commands import main

__all__ = ["main"]
