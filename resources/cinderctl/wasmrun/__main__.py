"""`python -m cinderctl.wasmrun --directory DIR --socket SOCK [--cache DIR]`: the runtime process of a wasi node."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from cinderctl.wasmrun.zygote import Zygote

__all__ = ["main"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="cinderctl.wasmrun", description="Runs the WebAssembly modules of one node.")
    parser.add_argument("--directory", type=Path, required=True, help="where runs are recorded; one runtime at a time")
    parser.add_argument("--socket", type=Path, required=True, help="the Unix socket the node agent connects to")
    parser.add_argument("--cache", type=Path, help="compiled modules (default: DIRECTORY/compiled)")
    arguments = parser.parse_args()
    directory: Path = arguments.directory.absolute()
    try:
        zygote = Zygote(directory, arguments.socket.absolute(), arguments.cache or directory / "compiled", _say)
        zygote.serve()
    except (OSError, TimeoutError) as error:
        _say(f"cannot run: {error}")
        raise SystemExit(1) from error


def _say(text: str) -> None:
    # The supervisor appends standard error to the component's log; `logging` is not worth half a MiB here.
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    os.write(2, f"{stamp} wasmrun[{os.getpid()}] {text}\n".encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
