"""The supervisor process of a directory: `python -m cinderctl.cli.supervise DIRECTORY`.

The composition root of what runs beside a cluster: it knows which code stands behind a task's name. Imports stay small,
for this process lives as long as the cluster.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.dirs import ClusterDir
from cinderctl.host.supervisor import supervise

__all__ = ["main"]


async def _egress(config: Mapping[str, Any], root: Path) -> None:
    from cinderctl.podnet.egress import serve_egress

    await serve_egress(config, root)


async def _local_path(config: Mapping[str, Any], root: Path) -> None:
    # In a thread: 0.1 s and more in which a request, such as to start a node's processes, would go unheard.
    await asyncio.to_thread(importlib.import_module, "cinderctl.localpath.controller")
    from cinderctl.localpath.provisioner import serve_local_path

    await serve_local_path(config, root)


def main() -> None:
    directory = ClusterDir(Path(sys.argv[1]))
    try:
        asyncio.run(supervise(directory, {"egress": _egress, "local-path": _local_path}))
    except CinderError as error:
        sys.exit(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {error}")


if __name__ == "__main__":
    main()
