"""What the machine is and has: read from the system's own files, honest inside a container too."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HostFacts", "Pressure", "host_facts", "pressure"]

_MEMORY_LOW = 100 << 20  # bytes available; the kubelet's default eviction signal memory.available<100Mi
_DISK_LOW = 0.10  # of the file system; nodefs.available<10%
_INODES_LOW = 0.05  # nodefs.inodesFree<5%
_PIDS_LOW = 0.02


@dataclass(frozen=True, slots=True)
class HostFacts:
    """`memory` and `storage` in bytes, `cpus` usable by this process."""

    cpus: int
    memory: int
    storage: int
    machine_id: str
    system_uuid: str
    boot_id: str
    kernel: str
    os_image: str


@dataclass(frozen=True, slots=True)
class Pressure:
    memory: bool = False
    disk: bool = False
    pids: bool = False


def host_facts(directory: Path, node_name: str) -> HostFacts:
    """`directory` lies on the file system that pods use."""
    machine = _text("/etc/machine-id") or uuid.uuid5(uuid.NAMESPACE_DNS, platform.node()).hex
    return HostFacts(
        cpus=_cpus(),
        memory=_memory(),
        storage=shutil.disk_usage(directory).total,
        machine_id=machine,
        system_uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{machine}/{node_name}")),
        boot_id=_text("/proc/sys/kernel/random/boot_id"),
        kernel=platform.release(),
        os_image=_os_image(),
    )


def pressure(directory: Path) -> Pressure:
    """Whether the machine runs short of something now, by the kubelet's default thresholds."""
    file_system = os.statvfs(directory)
    free = file_system.f_bavail / max(1, file_system.f_blocks)
    # Some file systems (btrfs, 9p) count no inodes.
    inodes = file_system.f_favail / file_system.f_files if file_system.f_files else 1.0
    return Pressure(
        memory=_available_memory() < _MEMORY_LOW,
        disk=free < _DISK_LOW or inodes < _INODES_LOW,
        pids=_free_pids() < _PIDS_LOW,
    )


def _cpus() -> int:
    try:
        usable = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        usable = os.cpu_count() or 1
    quota, _, period = _text("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        usable = min(usable, max(1, -(-int(quota) // int(period))))
    return usable


def _memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _text("/sys/fs/cgroup/memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


def _available_memory() -> int:
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    available = int(found[1]) * 1024 if found else _memory()
    limit, used = _text("/sys/fs/cgroup/memory.max"), _text("/sys/fs/cgroup/memory.current")
    if limit.isdigit() and used.isdigit():
        cache = re.search(r"^inactive_file (\d+)", _text("/sys/fs/cgroup/memory.stat"), re.MULTILINE)
        available = min(available, int(limit) - int(used) + (int(cache[1]) if cache else 0))
    return available


def _free_pids() -> float:
    most, load = _text("/proc/sys/kernel/pid_max"), _text("/proc/loadavg").split()
    if not most.isdigit() or len(load) < 4:
        return 1.0
    return 1.0 - int(load[3].partition("/")[2] or 0) / int(most)


def _os_image() -> str:
    release: Mapping[str, str] = {}
    with contextlib.suppress(OSError):
        release = platform.freedesktop_os_release()
    return release.get("PRETTY_NAME") or f"{platform.system()} {platform.release()}"


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
