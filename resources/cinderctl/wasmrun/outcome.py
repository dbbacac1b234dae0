"""How a run ended, in the words of a container status, and the files that remember it.

Exit codes: `proc_exit(n)` → n & 255; return from `_start` → 0; trap → 134 (as SIGABRT gives) with the trap's name; too
little memory → 137 and `OOMKilled`; stopped → 143; its process killed because it would not stop → 137; its process
crashed → 128 + signal; never got as far as the guest's code → 128 and `StartError`.

`runs/<id>.json` holds a RunState, written when a run begins, and again, synced to disk, before its end is reported.
The plain `os` calls are deliberate: shards write these, and `cinderctl.host.files` would cost each 5 MiB of imports.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

from cinderctl.wasmrun.protocol import RunState, state_from_json, to_json

__all__ = [
    "MAX_MESSAGE",
    "completed",
    "crashed",
    "failed",
    "forget",
    "is_memory_refusal",
    "killed",
    "load_all",
    "looks_out_of_memory",
    "lost",
    "out_of_memory",
    "read",
    "record",
    "stopped",
    "trapped",
]

MAX_MESSAGE = 4096

# What allocators print when a grow failed, beside dying of it.
_ALLOCATION_FAILED = re.compile(
    rb"memory allocation of \d+ bytes failed|out of memory|cannot allocate memory|std::bad_alloc|OutOfMemory",
    re.IGNORECASE,
)


def completed(state: RunState, code: int, at: float) -> RunState:
    reason = "Completed" if code & 255 == 0 else "Error"
    return replace(state, state="finished", finished_at=at, exit_code=code & 255, reason=reason)


def trapped(state: RunState, name: str, message: str, at: float) -> RunState:
    return _ended(state, 134, "Error", f"trap {name or 'in the host'}\n{message}", at)


def out_of_memory(state: RunState, message: str, at: float) -> RunState:
    return _ended(state, 137, "OOMKilled", message, at)


def stopped(state: RunState, at: float) -> RunState:
    return _ended(state, 143, "Error", "stopped", at)


def killed(state: RunState, at: float) -> RunState:
    return _ended(state, 137, "Error", "did not stop within its grace period; its process was killed", at)


def crashed(state: RunState, wait_status: int, at: float) -> RunState:
    """`wait_status` as of waitpid: the process around the guest ended by itself."""
    number = os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else 0
    if not number:
        return _ended(state, 128, "Error", f"the shard ended with status {os.WEXITSTATUS(wait_status)}", at)
    name = signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
    why = ", by the kernel for want of memory or by an operator" if number == signal.SIGKILL else ""
    return _ended(state, 128 + number, "Error", f"the shard this ran in was ended by {name}{why}", at)


def failed(state: RunState, message: str, at: float) -> RunState:
    return _ended(state, 128, "StartError", message, at)


def lost(state: RunState, reason: str, message: str, at: float) -> RunState:
    return replace(state, state="lost", finished_at=at, reason=reason, message=message)


def _ended(state: RunState, code: int, reason: str, message: str, at: float) -> RunState:
    return replace(
        state, state="finished", finished_at=at, exit_code=code, reason=reason, message=message[:MAX_MESSAGE]
    )


def is_memory_refusal(message: str) -> bool:
    """Whether wasmtime says that a module wants more memory at once, or more for its GC heap, than it may have."""
    return ("memory minimum size" in message and "exceeds memory limits" in message) or "GC heap out of" in message


def looks_out_of_memory(used: int, limit: int, stderr_tail: bytes) -> bool:
    """Whether a guest that trapped did so for want of memory.

    A refused `memory.grow` only returns -1 to the guest and the C API tells nobody, so this is judged by what is left:
    the memory (`used`, `limit` in bytes) is nearly all in use, or the guest's allocator has said so.
    """
    if limit <= 0:
        return False
    return used * 4 >= limit * 3 or _ALLOCATION_FAILED.search(stderr_tail) is not None


def record(directory: Path, state: RunState, *, durable: bool) -> None:
    """Writes `runs/<id>.json` in one step; `durable` outlasts a power cut. Raises OSError."""
    path = directory / f"{state.id}.json"
    temporary = directory / f".{state.id}.{os.getpid()}.tmp"
    data = json.dumps(to_json(state), ensure_ascii=False).encode("utf-8", "replace")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, data)
        if durable:
            os.fsync(fd)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(fd)
    temporary.rename(path)
    if durable:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(directory: Path, id: str) -> RunState | None:  # noqa: A002 (the protocol's word)
    """The recorded state; None when there is no readable record."""
    try:
        return state_from_json(json.loads((directory / f"{id}.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def forget(directory: Path, id: str) -> None:  # noqa: A002
    with contextlib.suppress(FileNotFoundError):
        (directory / f"{id}.json").unlink()


def load_all(directory: Path, at: float) -> dict[str, RunState]:
    """What an earlier runtime left: its outcomes as they are, its unfinished runs as lost. Raises OSError."""
    states: dict[str, RunState] = {}
    for path in directory.iterdir():
        if path.name.startswith("."):
            path.unlink(missing_ok=True)
            continue
        id = path.name.removesuffix(".json")  # noqa: A001
        # A record that cannot be read was being written when the power went: that run had begun.
        state = read(directory, id) or RunState(id, "running")
        if not state.over:
            state = lost(state, "RuntimeDied", "the wasm runtime ended while this ran", at)
            with contextlib.suppress(OSError):  # a full disk: the old record says the same the next time
                record(directory, state, durable=True)
        states[state.id] = state
    return states
