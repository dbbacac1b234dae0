"""The version of cinderctl, in one place. A module of its own, so that `--version` imports nothing else."""

__all__ = ["__version__"]

__version__ = "0.1.0"
