"""The WASI preview 1 functions that are ours, and the configuration of one guest.

wasmtime's own `proc_exit` refuses codes of 126 and more and forgets them; its `poll_oneoff` sleeps where nothing can
wake it. Both are replaced. Everything else is wasmtime's. Which guest calls is known by the thread: one guest, one
thread.

Output: stdout is a pipe the shard reads (a write costs the guest under 1 µs and no lock of ours), stderr a callback on
wasmtime's threads (25 µs). Whoever takes stderr first empties the pipe, so the log keeps the order the guest wrote in.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import time
from collections.abc import Callable
from ctypes import byref, c_size_t, c_uint32
from dataclasses import dataclass, field
from typing import Any

from cinderctl.wasmrun.capi import (
    DEADLINE_CALLBACK,
    EXTERN_MEMORY,
    HOST_CALLBACK,
    OUTPUT_CALLBACK,
    Extern,
    PointerVec,
    call,
    string_array,
)
from cinderctl.wasmrun.protocol import RunSpec

__all__ = ["Interruption", "WasiError", "configure", "current", "deadline_callback", "define", "stderr_callback"]

_SPACE = b"wasi_snapshot_preview1"
_I32 = 0

_EFAULT, _EINVAL = 21, 28
_SUBSCRIPTION = 48
_EVENT = struct.Struct("<QHBxxxxxQHxxxxxx")
_MAX_SUBSCRIPTIONS = 4096
# threading's waits take no more than some 292 years; a guest may ask for more.
_LONGEST_WAIT = 86400.0


class WasiError(Exception):
    """The guest's configuration cannot be made: a mount that is no directory, for instance."""


@dataclass(slots=True)
class Interruption:
    """What host functions need of the guest on this thread. `origin` is its monotonic clock's zero, in nanoseconds."""

    asked: bool = False
    wake: threading.Event = field(default_factory=threading.Event)
    exit_code: int | None = None
    origin: int = 0

    def ask(self) -> None:
        """Wakes a sleeper; a running guest also needs the engine's epoch."""
        self.asked = True
        self.wake.set()


class _Current(threading.local):
    guest: Interruption | None = None


current = _Current()
"""The guest on this thread, set by whoever runs it."""


def define(linker: int) -> list[Any]:
    """Puts our functions over wasmtime's. Keep the result alive as long as the linker."""
    kept = []
    for name, parameters, results, function in (
        (b"proc_exit", 1, 0, _proc_exit),
        (b"poll_oneoff", 4, 1, _poll_oneoff),
    ):
        callback = HOST_CALLBACK(_trapping(function))
        kind = call.wasm_functype_new(byref(_types(parameters)), byref(_types(results)))
        error = call.wasmtime_linker_define_func_unchecked(
            linker, _SPACE, len(_SPACE), name, len(name), kind, callback, None, None
        )
        call.wasm_functype_delete(kind)
        if error:
            call.wasmtime_error_delete(error)
            raise WasiError(f"cannot define {name.decode()}")
        kept.append(callback)
    return kept


def configure(spec: RunSpec, stdout: int, stderr: Any, number: int) -> int:
    """An owned `wasi_config_t`. `stdout` is a descriptor opened anew here. Raises WasiError, OSError."""
    config = call.wasi_config_new()
    argv = string_array(list(spec.argv))
    names = string_array([name for name, _ in spec.env])
    values = string_array([value for _, value in spec.env])
    try:
        if not call.wasi_config_set_argv(config, len(spec.argv), ctypes.addressof(argv)):
            raise WasiError("an argument is not UTF-8")
        if not call.wasi_config_set_env(config, len(spec.env), ctypes.addressof(names), ctypes.addressof(values)):
            raise WasiError("an environment variable is not UTF-8")
        if not call.wasi_config_set_stdout_file(config, b"/proc/self/fd/%d" % stdout):
            raise WasiError("standard output cannot be opened")
        call.wasi_config_set_stderr_custom(config, stderr, number, None)
        for mount in spec.mounts:
            host, guest = os.fsencode(mount.host), mount.guest.encode("utf-8", "replace")
            if not call.wasi_config_preopen_dir(config, host, guest, not mount.read_only):
                # wasmtime gives no reason; opening it ourselves does (or raises OSError: out of descriptors).
                os.close(os.open(mount.host, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                raise WasiError(f"mount {mount.guest}: {mount.host} cannot be opened")
    except (WasiError, OSError):
        call.wasi_config_delete(config)
        raise
    return config  # type: ignore[no-any-return]


def stderr_callback(take: Callable[[int, bytes], None]) -> Any:
    """`take(number, data)` runs on threads of wasmtime's: it must not ask which thread it is on."""

    def callback(number: int | None, data: int, count: int) -> int:
        try:
            take(number or 0, ctypes.string_at(data, count))
        except Exception:  # noqa: BLE001 (nothing may pass into C; the guest is not to blame)
            return count
        return count

    return OUTPUT_CALLBACK(callback)


def deadline_callback() -> Any:
    """Called on a guest's thread when the epoch moved: ends a guest that was asked to end, lets others go on."""

    def callback(_context: int, _data: int, delta: Any, kind: Any) -> int:
        guest = current.guest
        if guest is not None and guest.asked:
            return int(call.wasmtime_error_new(b"interrupted"))
        delta[0] = 1
        kind[0] = 0
        return 0

    return DEADLINE_CALLBACK(callback)


def _trapping(function: Callable[[int, Any], int | None]) -> Callable[[Any, int, int, int], int]:
    """Makes `function(caller, slots)` a C callback: its result goes to slot 0, None and exceptions become a trap."""

    def callback(_env: int | None, caller: int, slots: int, count: int) -> int:
        try:
            arguments = (c_uint32 * (4 * count)).from_address(slots)
            result = function(caller, arguments)
        except Exception as error:  # noqa: BLE001 (nothing may pass into C)
            text = f"host function failed: {error}".encode()
            return int(call.wasmtime_trap_new(text, len(text)))
        if result is None:
            return int(call.wasmtime_trap_new(b"ended", 5))
        arguments[0] = result
        return 0

    return callback


def _types(count: int) -> PointerVec:
    types = (ctypes.c_void_p * max(count, 1))(*(call.wasm_valtype_new(_I32) for _ in range(count)))
    vec = PointerVec()
    call.wasm_valtype_vec_new(byref(vec), c_size_t(count), types)
    return vec


def _proc_exit(_caller: int, arguments: Any) -> int | None:
    guest = current.guest
    if guest is not None:
        guest.exit_code = arguments[0]
    return None


def _poll_oneoff(caller: int, arguments: Any) -> int | None:
    """`(in, out, nsubscriptions, nevents_out)`; each argument is the first word of its 16-byte slot."""
    guest = current.guest
    found = Extern()
    if guest is None or not call.wasmtime_caller_export_get(caller, b"memory", 6, byref(found)):
        return _EFAULT
    if found.kind != EXTERN_MEMORY:
        return _EFAULT
    subscriptions, events, count, written = arguments[0], arguments[4], arguments[8], arguments[12]
    if not 0 < count <= _MAX_SUBSCRIPTIONS:
        return _EINVAL
    context = call.wasmtime_caller_context(caller)
    size = call.wasmtime_memory_data_size(context, byref(found.of.memory))
    if subscriptions + _SUBSCRIPTION * count > size or events + _EVENT.size * count > size or written + 4 > size:
        return _EFAULT
    base = call.wasmtime_memory_data(context, byref(found.of.memory))
    raw = ctypes.string_at(base + subscriptions, _SUBSCRIPTION * count)
    ready = _wait(raw, count, guest)
    if ready is None:
        return None
    # No guest code ran meanwhile, so the memory is where it was.
    ctypes.memmove(base + events, b"".join(ready), _EVENT.size * len(ready))
    ctypes.memmove(base + written, struct.pack("<I", len(ready)), 4)
    return 0


def _wait(raw: bytes, count: int, guest: Interruption) -> list[bytes] | None:
    """The packed events that have come, after sleeping until the first; None when the guest is to end.

    Files and streams are always ready (as they are natively for regular files; stdin is at its end).
    """
    now = {0: time.time_ns(), 1: time.monotonic_ns() - guest.origin}
    ready: list[bytes] = []
    clocks: list[tuple[int, int]] = []  # (nanoseconds from now, user data)
    for i in range(count):
        user, tag = struct.unpack_from("<QB", raw, _SUBSCRIPTION * i)
        if tag != 0:
            ready.append(_EVENT.pack(user, 0 if tag < 3 else _EINVAL, tag, 1, 0))
            continue
        clock, timeout, flags = struct.unpack_from("<I4xQ8xH", raw, _SUBSCRIPTION * i + 16)
        if clock not in now:
            ready.append(_EVENT.pack(user, _EINVAL, 0, 0, 0))
        else:
            clocks.append((max(0, timeout - now[clock]) if flags & 1 else timeout, user))
    if ready:
        return None if guest.asked else ready + [_EVENT.pack(u, 0, 0, 0, 0) for t, u in clocks if t == 0]
    shortest = min(timeout for timeout, _ in clocks)
    end = time.monotonic() + shortest / 1e9
    while (left := end - time.monotonic()) > 0:
        if guest.wake.wait(min(left, _LONGEST_WAIT)):
            return None
    return None if guest.asked else [_EVENT.pack(u, 0, 0, 0, 0) for t, u in clocks if t <= shortest]
