"""Which version of blockrate this is; checkpoints and files of weights say it too."""

__version__ = "0.1.0"
