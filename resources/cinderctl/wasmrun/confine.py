"""What a process of the runtime does to itself before it goes to work."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import time
from collections.abc import Collection
from pathlib import Path

__all__ = ["become_runtime", "become_shard", "become_worker", "hold_lock"]

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 1, 15, 38
_M_ARENA_MAX = -8

# 125 guests with a few mounts and files each; a guest that opens everything meets this wall, not the machine's.
_SHARD_FILES = 4096
# Above everything a user cares for: under memory pressure the kernel takes a shard first.
_OOM_SCORE = 500

_libc = ctypes.CDLL(None, use_errno=True)


def become_runtime() -> None:
    """The zygote: no privileges to gain, for it or anything it forks; small heaps in processes of many threads."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # glibc would give every few threads of a shard an arena of their own.
    _libc.mallopt(_M_ARENA_MAX, 2)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # A descriptor for each shard, module and agent; the soft limit of 1024 is for programs that use select().
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _name("cinder-wasmrun")


def become_shard(parent: int, keep: Collection[int]) -> None:
    """A forked shard: dies with its parent, and nothing of the parent's is open but stdio and `keep`."""
    become_worker(parent, keep)
    _name("cinder-shard")
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        limit = _SHARD_FILES if hard == resource.RLIM_INFINITY else min(_SHARD_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def become_worker(parent: int, keep: Collection[int]) -> None:
    """Any forked child of the zygote. `parent` is the zygote's pid; a child whose parent is gone ends at once."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    _name("cinder-compile")
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if (fd := int(name)) > 2 and fd not in keep:
            with contextlib.suppress(OSError):  # the listing's own
                os.close(fd)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


def hold_lock(path: Path, timeout: float) -> int:
    """Waits until no other runtime, nor a shard of one, works in this directory. Raises TimeoutError.

    The descriptor is inherited by shards, so the lock outlives the runtime for as long as one of them does.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                raise TimeoutError(f"another wasm runtime holds {path}") from None
        else:
            return fd
        time.sleep(0.01)


def _name(name: str) -> None:
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
