"""One guest from start to end, on the thread that calls.

The outcome lives in the guest's own object and `_start` is called with a trap pointer of this call, so that guests on
other threads cannot mix theirs in.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Callable
from ctypes import byref, c_void_p
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cinderctl.wasmrun import outcome
from cinderctl.wasmrun.capi import EXTERN_FUNC, EXTERN_MEMORY, Extern, Instance, call, error_text, trap_text
from cinderctl.wasmrun.logfile import CriLog
from cinderctl.wasmrun.protocol import RunSpec, RunState
from cinderctl.wasmrun.sandbox import Sandbox
from cinderctl.wasmrun.wasi import Interruption, WasiError, configure, current

__all__ = ["Guest", "default_memory_limit", "execute"]

# What a command has no honest use for more of; tables are host memory beside the linear memory (8 bytes an element).
_TABLES, _TABLE_ELEMENTS, _INSTANCES, _MEMORIES = 8, 1_000_000, 1, 1
_MAX_WASM32 = 4 << 30
_PIPE_CHUNK = 1 << 16
# After the store is gone the pipe's writing end is closed; a wait this long means that something else holds it.
_DRAIN_SECONDS = 1.0
# This process has no room; another shard may have.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@dataclass(slots=True, eq=False)
class Guest:
    """A run in a shard. `number` names it to C callbacks; `tid` is the kernel's thread id once it runs."""

    spec: RunSpec
    state: RunState
    number: int
    interruption: Interruption = field(default_factory=Interruption)
    lock: threading.Lock = field(default_factory=threading.Lock)
    log: CriLog | None = None
    pipe: int = -1
    tid: int = 0
    niced: bool = False

    def take_stdout(self) -> int:
        """Moves what is in the pipe to the log; returns how many bytes that was, -1 at its end. Never blocks."""
        with self.lock:
            return self._take_stdout()

    def take_stderr(self, data: bytes) -> None:
        """The guest waits until this returns, so all it wrote to stdout before is in the pipe by now."""
        with self.lock:
            while self._take_stdout() == _PIPE_CHUNK:
                pass
            if self.log is not None:
                self.log.feed("stderr", data)

    def _take_stdout(self) -> int:
        if self.pipe < 0:
            return -1
        try:
            data = os.read(self.pipe, _PIPE_CHUNK)
        except BlockingIOError:
            return 0
        if data and self.log is not None:
            self.log.feed("stdout", data)
        return len(data) or -1


def default_memory_limit() -> int:
    """For runs without a limit: half of the machine's memory, at most what 32-bit wasm can address. Bytes."""
    return min(_MAX_WASM32, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)


def execute(
    guest: Guest,
    sandbox: Sandbox,
    callbacks: tuple[Any, Any],
    *,
    watch: Callable[[Guest], None],
    unwatch: Callable[[Guest], None],
    started: Callable[[], None],
) -> RunState:
    """Runs `guest` and returns its final state; its log is complete then.

    `callbacks` are (deadline, stderr). `watch` is told when the stdout pipe can be read, `unwatch` when no more;
    `started` is called just before guest code can run. Raises OSError when this process is out of descriptors or memory
    before that.
    """
    spec = guest.spec
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reading, False)
    guest.pipe = reading
    try:
        guest.log = CriLog(Path(spec.log), limit=spec.log_limit_bytes, files=spec.log_files)
        config = configure(spec, writing, callbacks[1], guest.number)
    except (WasiError, OSError) as error:
        _close(guest)
        if isinstance(error, OSError) and error.errno in _EXHAUSTED:
            raise
        started()
        return outcome.failed(guest.state, _why(error), time.time())
    finally:
        os.close(writing)
    watch(guest)
    try:
        return _call(guest, sandbox, callbacks[0], config, started)
    finally:
        unwatch(guest)
        _drain(guest)
        _close(guest)


def _call(guest: Guest, sandbox: Sandbox, deadline: Any, config: int, started: Callable[[], None]) -> RunState:
    limit = guest.spec.memory_limit or default_memory_limit()
    store = call.wasmtime_store_new(sandbox.engine, None, None)
    try:
        context = call.wasmtime_store_context(store)
        call.wasmtime_store_limiter(store, limit, _TABLE_ELEMENTS, _INSTANCES, _TABLES, _MEMORIES)
        call.wasmtime_store_epoch_deadline_callback(store, deadline, None, None)
        call.wasmtime_context_set_epoch_deadline(context, 1)
        guest.interruption.origin = time.monotonic_ns()
        error = call.wasmtime_context_set_wasi(context, config)
        if error:
            return outcome.failed(guest.state, error_text(error), time.time())
        current.guest = guest.interruption
        started()
        # Asked before the deadline was set: no epoch will come for it.
        if guest.interruption.asked:
            return outcome.stopped(guest.state, time.time())
        return _outcome(guest, sandbox, context, limit)
    finally:
        current.guest = None
        call.wasmtime_store_delete(store)


def _outcome(guest: Guest, sandbox: Sandbox, context: int, limit: int) -> RunState:
    instance, found, trap = Instance(), Extern(), c_void_p()
    prepared = sandbox.prepared(guest.spec.digest)
    in_start = False
    error = call.wasmtime_instance_pre_instantiate(prepared, context, byref(instance), byref(trap))
    if not error and not trap:
        in_start = True
        call.wasmtime_instance_export_get(context, byref(instance), b"_start", 6, byref(found))
        if found.kind != EXTERN_FUNC:
            return outcome.failed(guest.state, "_start is no function", time.time())
        error = call.wasmtime_func_call(context, byref(found.of.func), None, 0, None, 0, byref(trap))
    at = time.time()
    name, message = trap_text(trap.value) if trap.value else ("", "")
    if error:
        message = error_text(error)
    code = guest.interruption.exit_code
    if code is not None:
        return outcome.completed(guest.state, code, at)
    if guest.interruption.asked and (trap or error):
        return outcome.stopped(guest.state, at)
    if trap:
        used = _memory_used(context, instance) if in_start else 0
        tail = guest.log.stderr_tail if guest.log is not None else b""
        if outcome.looks_out_of_memory(used, guest.spec.memory_limit, tail):
            text = f"trap {name} with {used} of {limit} bytes of memory in use\n{message}"
            return outcome.out_of_memory(guest.state, text, at)
        return outcome.trapped(guest.state, name, message, at)
    if error:
        if outcome.is_memory_refusal(message):
            return outcome.out_of_memory(guest.state, message, at)
        if in_start:
            return outcome.trapped(guest.state, name, message, at)
        return outcome.failed(guest.state, message, at)
    return outcome.completed(guest.state, 0, at)


def _memory_used(context: int, instance: Instance) -> int:
    found = Extern()
    if not call.wasmtime_instance_export_get(context, byref(instance), b"memory", 6, byref(found)):
        return 0
    if found.kind != EXTERN_MEMORY:
        return 0
    return int(call.wasmtime_memory_data_size(context, byref(found.of.memory)))


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def _drain(guest: Guest) -> None:
    """Takes the rest of stdout. The guest is gone, so the end of the pipe is at hand."""
    poller = select.poll()
    poller.register(guest.pipe, select.POLLIN)
    while (count := guest.take_stdout()) >= 0:
        if count == 0 and not poller.poll(_DRAIN_SECONDS * 1000):
            return


def _close(guest: Guest) -> None:
    with guest.lock:
        os.close(guest.pipe)
        guest.pipe = -1
        if guest.log is not None:
            guest.log.finish()
            guest.log = None
