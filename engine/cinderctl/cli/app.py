"""The entry point. Imports nothing before it knows that more than `--version` is asked for."""

from __future__ import annotations

import gc
import sys

from cinderctl.core.version import __version__

__all__ = ["main"]


def main() -> None:
    """Run the command line of this process and exit with its code."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        sys.stdout.write(f"cinderctl {__version__}\n")
        return
    # Imports make objects by the hundred thousand and hardly a cycle: looking for some costs 7 % of a command's time.
    gc.set_threshold(200_000)
    from cinderctl.cli.run import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
