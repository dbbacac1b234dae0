"""The entry point. Imports nothing before it knows that more than `--version` is asked for."""

from __future__ import annotations

import sys

from cinderctl.core.version import __version__

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit with its code."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        sys.stdout.write(f"cinderctl {__version__}\n")
        return
    from cinderctl.cli.run import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
