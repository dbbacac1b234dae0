"""What the node and its pods use, in the forms that `kubectl top`, dashboards and Prometheus read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cinderctl.wasmnode.podspec import time_text
from cinderctl.wasmnode.worker import PodWorker

__all__ = ["metrics_text", "summary"]

_STARTED = time.time()


def summary(node_name: str, directory: Path, workers: Iterable[PodWorker], now: float) -> dict[str, Any]:
    """The answer of /stats/summary (kubelet API v1alpha1, the fields its readers need). Blocking."""
    moment = time_text(now)
    file_system = os.statvfs(directory)
    size = file_system.f_frsize
    disk = {
        "time": moment,
        "availableBytes": file_system.f_bavail * size,
        "capacityBytes": file_system.f_blocks * size,
        "usedBytes": (file_system.f_blocks - file_system.f_bfree) * size,
        "inodes": file_system.f_files,
        "inodesFree": file_system.f_favail,
        "inodesUsed": file_system.f_files - file_system.f_ffree,
    }
    memory = _meminfo()
    return {
        "node": {
            "nodeName": node_name,
            "startTime": time_text(_STARTED),
            "cpu": {"time": moment, "usageCoreNanoSeconds": _cpu_nanoseconds()},
            "memory": {
                "time": moment,
                "availableBytes": memory.get("MemAvailable", 0),
                "usageBytes": memory.get("MemTotal", 0) - memory.get("MemFree", 0),
                "workingSetBytes": memory.get("MemTotal", 0) - memory.get("MemAvailable", 0),
            },
            "fs": disk,
        },
        "pods": [_pod(worker, moment) for worker in workers],
    }


def _pod(worker: PodWorker, moment: str | None) -> dict[str, Any]:
    pod = worker.pod
    containers = [
        {
            "name": name,
            "startTime": time_text(state.started_at),
            "logs": {"time": moment, "usedBytes": worker.log_bytes(name)},
        }
        for name, state in worker.record.containers.items()
        if state.phase == "running"
    ]
    return {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": time_text(worker.record.started),
        "containers": containers,
    }


def metrics_text(workers: Iterable[PodWorker], runtime_connected: bool, counters: Mapping[str, float]) -> str:
    """The answer of /metrics, in Prometheus' text form. `counters`: name → value, under `cinderctl_node_`."""
    phases: dict[str, int] = {}
    containers: dict[str, int] = {}
    restarts = 0
    for worker in workers:
        phases[worker.phase] = phases.get(worker.phase, 0) + 1
        for state in worker.record.containers.values():
            containers[state.phase] = containers.get(state.phase, 0) + 1
            restarts += state.attempt
    lines = ["# HELP cinderctl_node_pods Pods of this node by phase.", "# TYPE cinderctl_node_pods gauge"]
    lines += [f'cinderctl_node_pods{{phase="{phase}"}} {count}' for phase, count in sorted(phases.items())]
    lines += ["# HELP cinderctl_node_containers Containers by state.", "# TYPE cinderctl_node_containers gauge"]
    lines += [f'cinderctl_node_containers{{state="{state}"}} {count}' for state, count in sorted(containers.items())]
    gauges = {
        "container_restarts": (restarts, "Restarts of the containers of present pods."),
        "runtime_up": (int(runtime_connected), "Whether the wasm runtime answers."),
        "process_resident_memory_bytes": (_resident(), "Resident memory of the agent."),
        "process_cpu_seconds": (sum(os.times()[:2]), "CPU time of the agent."),
    }
    for name, (value, help_text) in gauges.items():
        lines += [f"# HELP cinderctl_node_{name} {help_text}", f"# TYPE cinderctl_node_{name} gauge"]
        lines.append(f"cinderctl_node_{name} {value}")
    for name, value in sorted(counters.items()):
        lines += [f"# TYPE cinderctl_node_{name} counter", f"cinderctl_node_{name} {value}"]
    return "\n".join(lines) + "\n"


def _meminfo() -> dict[str, int]:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: int(value.split()[0]) * 1024 for name, value in pairs if value.split()}


def _cpu_nanoseconds() -> int:
    """CPU time of the machine since its start, without idle and waiting."""
    try:
        fields = [int(f) for f in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except (OSError, ValueError):
        return 0
    busy = sum(fields[:3]) + sum(fields[5:8])
    return busy * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
