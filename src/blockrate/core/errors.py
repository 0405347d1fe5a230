"""What can go wrong by the user's doing, each with its exit code.

Source of the codes: sysexits.h where one fits (65, 71, 73, 75), else our own (74, 76).
"""


class BlockrateError(ValueError):
    """One sentence for the user: ``where: what is wrong. what to do``."""

    exit_code = 2

    def __init__(self, where: str, problem: str, cure: str = "") -> None:
        self.where = where
        self.problem = problem.rstrip(".")
        self.cure = cure
        super().__init__(f"{where}: {self.problem}. {cure}".rstrip())


class ConfigError(BlockrateError):
    """A setting is wrong. ``where`` is the config's key."""

    exit_code = 2


class FileError(BlockrateError):
    """A data or model file cannot be used. ``where`` is the file or folder."""

    exit_code = 65


class OutOfMemoryError(BlockrateError):
    """The device or the machine has no memory left."""

    exit_code = 71


class WriteError(BlockrateError):
    """Something cannot be written: disk full, read-only, folder gone."""

    exit_code = 73


class NoCheckpointError(BlockrateError):
    """There are checkpoints, and none is whole."""

    exit_code = 74


class NotANumberError(BlockrateError):
    """Loss or gradients stayed non-finite."""

    exit_code = 76
