"""What the processes of a cluster take while nothing happens: memory, and processor time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from world import Process, World

__all__ = ["Footprint", "observe"]

_TICKS = os.sysconf("SC_CLK_TCK")
_MODULES = {
    "cinderctl.cli.supervise": "supervisor",
    "cinderctl.wasmnode": "node agent",
    "cinderctl.wasmrun": "module runtime",
}


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one process. `role` says whose it is; `own` whether it is cinderctl's code. MiB; `cpu` in per cent of a core.

    Resident memory counts pages that processes share once for each of them; the proportional set size counts them once
    in all.
    """

    role: str
    own: bool
    rss: float
    pss: float
    cpu: float


def observe(world: World, settle: float, span: float) -> list[Footprint]:
    """After `settle` seconds, over `span` seconds."""
    time.sleep(settle)
    begun = time.perf_counter()
    before = {process.pid: _ticks(process.pid) for process in world.processes()}
    time.sleep(span)
    elapsed = time.perf_counter() - begun
    found = []
    for process in world.processes():
        ticks, memory = _ticks(process.pid), _memory(process.pid)
        if memory is None or ticks is None:
            continue
        role, own = _role(process, world)
        used = ticks - (before.get(process.pid) or 0)
        found.append(Footprint(role, own, memory[0], memory[1], 100 * used / _TICKS / elapsed))
    return sorted(found, key=lambda one: (not one.own, one.role))


def _role(process: Process, world: World) -> tuple[str, bool]:
    words = process.command.split()
    if "-m" in words and (module := words[words.index("-m") + 1]) in _MODULES:
        role = _MODULES[module]
        if role == "supervisor":
            role = "supervisor of the cluster" if str(world.directory) in words else "supervisor of the registry"
        return role, True
    return Path(words[0]).name, "cinderctl" in process.command.partition(" -")[2] and "python" in words[0]


def _ticks(pid: int) -> int | None:
    """Clock ticks of processor time so far (proc(5), stat fields 14 and 15)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[11]) + int(fields[12])


def _memory(pid: int) -> tuple[float, float] | None:
    """RSS and PSS in MiB (proc(5), smaps_rollup)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    sizes = {line.partition(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    return sizes["Rss"] / 1024, sizes["Pss"] / 1024
