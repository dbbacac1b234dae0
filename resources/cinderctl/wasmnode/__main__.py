"""`python -m cinderctl.wasmnode --config FILE`: the node agent as a process, ended by SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
import sys
from pathlib import Path

from cinderctl.core.diagnostics import CinderError
from cinderctl.wasmnode.agent import log_line, run_agent
from cinderctl.wasmnode.config import NodeConfig, load_config


async def _until_told(config: NodeConfig) -> None:
    task = asyncio.create_task(run_agent(config))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cinderctl.wasmnode", description="The cinderctl node agent.")
    parser.add_argument("--config", type=Path, required=True, help="JSON file, written by cinderctl")
    arguments = parser.parse_args()
    try:
        config = load_config(arguments.config)
        # What the imports made stays for ever: keep it out of every later collection.
        gc.collect()
        gc.freeze()
        asyncio.run(_until_told(config))
    except CinderError as error:
        for diagnostic in error.diagnostics:
            log_line(f"error: {diagnostic.summary}" + (f" ({diagnostic.detail})" if diagnostic.detail else ""))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
