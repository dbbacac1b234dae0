"""What every pod worker of a node works with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cinderctl.kube.aio import AsyncKube
from cinderctl.wasmnode.config import NodeConfig, Timing
from cinderctl.wasmnode.events import Events
from cinderctl.wasmnode.images import ImageStore
from cinderctl.wasmnode.objects import Objects
from cinderctl.wasmnode.records import RecordStore
from cinderctl.wasmnode.runtime import RuntimeLink
from cinderctl.wasmnode.status_writer import StatusWriter

__all__ = ["Services"]


@dataclass(frozen=True, slots=True)
class Services:
    """`memory` (bytes) and `cpus` of the host, for the downward API. `log` takes a line for the agent's log."""

    config: NodeConfig
    timing: Timing
    kube: AsyncKube
    objects: Objects
    images: ImageStore
    runtime: RuntimeLink
    records: RecordStore
    statuses: StatusWriter
    events: Events
    memory: int
    cpus: int
    log: Callable[[str], None]
    now: Callable[[], float] = time.time

    def pod_dir(self, uid: str) -> Path:
        return self.config.pods_dir / uid

    def log_path(self, uid: str, container: str, attempt: int) -> Path:
        """The CRI log of one attempt."""
        return self.pod_dir(uid) / "logs" / container / f"{attempt}.log"
