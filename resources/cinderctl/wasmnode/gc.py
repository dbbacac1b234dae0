"""Clears away what nobody needs any more: directories of pods that are gone, modules no pod uses."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.files import remove_tree
from cinderctl.wasmnode.config import Timing
from cinderctl.wasmnode.images import ImageStore

__all__ = ["Collector", "remove_orphans"]

_DISK_HIGH = 0.85
_ORPHAN_AGE = 10.0  # seconds; a directory younger than this may belong to a pod that is just being made


@dataclass(frozen=True, slots=True)
class Collector:
    """`alive` gives the uids of known pods, `in_use` the references of their images."""

    pods_dir: Path
    images: ImageStore
    timing: Timing
    alive: Callable[[], Collection[str]]
    in_use: Callable[[], frozenset[str]]
    log: Callable[[str], None]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                removed = await asyncio.to_thread(remove_orphans, self.pods_dir, frozenset(self.alive()))
                freed = await asyncio.to_thread(self.images.collect, self.in_use(), self._age())
            except (CinderError, OSError) as error:
                self.log(f"clearing away failed: {error}")
            else:
                if removed or freed:
                    self.log(f"cleared away {removed} directories of former pods, {freed} bytes of modules")
            await asyncio.sleep(self.timing.collect)

    def _age(self) -> float:
        """Seconds an unused image is kept."""
        usage = shutil.disk_usage(self.pods_dir)
        full = usage.used / max(1, usage.used + usage.free) > _DISK_HIGH
        return self.timing.image_age_full if full else self.timing.image_age


def remove_orphans(pods_dir: Path, alive: Collection[str], *, now: Callable[[], float] = time.time) -> int:
    """Blocking. Returns how many directories went."""
    horizon = now() - _ORPHAN_AGE
    gone = [p for p in pods_dir.iterdir() if p.name not in alive and p.lstat().st_mtime < horizon]
    for path in gone:
        remove_tree(path, below=pods_dir)
    return len(gone)
