"""What this wasmtime must be able to do before a node offers a workload class.

Tiny modules are run through the very code that runs guests, in a child of its own; a new wasmtime that behaves
otherwise is found here and not in somebody's pod.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from cinderctl.wasmrun.guest import Guest, execute
from cinderctl.wasmrun.protocol import RunSpec, RunState
from cinderctl.wasmrun.sandbox import ModuleError, Sandbox, wat2wasm
from cinderctl.wasmrun.wasi import deadline_callback, stderr_callback

__all__ = ["CHECKS", "classes_offered", "run_checks"]

_SECONDS = 5.0
_MEMORY = 1 << 20

_W = '"wasi_snapshot_preview1"'
_EXIT = f'(import {_W} "proc_exit" (func $exit (param i32)))'
_WRITE = f'(import {_W} "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))'
_POLL = f'(import {_W} "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))'

_MODULES = {
    "exit": f'(module {_EXIT} (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 200))))',
    "spin": '(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))',
    # one relative clock subscription of an hour: clock id 1 at 16, timeout at 24
    "sleep": f"""(module {_POLL} (memory (export "memory") 1) (func (export "_start")
        (i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 3600000000000))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))""",
    "memory": """(module (memory (export "memory") 1) (func (export "_start")
        (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (unreachable)))""",
    "recursion": """(module (memory (export "memory") 1)
        (func $f (export "_start") (local i64 i64 i64 i64) (call $f)))""",
    "bounds": """(module (memory (export "memory") 1)
        (func (export "_start") (drop (i32.load (i32.const 70000000)))))""",
    "table": f"""(module {_EXIT} (memory (export "memory") 1) (table 1 funcref) (func (export "_start")
        (call $exit (i32.add (i32.const 8) (table.grow 0 (ref.null func) (i32.const 4000000))))))""",
    # "a" to stdout, "b\\n" to stderr, "c\\n" to stdout
    "log": f"""(module {_WRITE} (memory (export "memory") 1) (data (i32.const 64) "ab\\0ac\\0a")
        (func $p (param i32 i32 i32)
          (i32.store (i32.const 0) (local.get 1)) (i32.store (i32.const 4) (local.get 2))
          (drop (call $write (local.get 0) (i32.const 0) (i32.const 1) (i32.const 16))))
        (func (export "_start") (call $p (i32.const 1) (i32.const 64) (i32.const 1))
          (call $p (i32.const 2) (i32.const 65) (i32.const 2))
          (call $p (i32.const 1) (i32.const 67) (i32.const 2))))""",
}

# check → what the run must come to: (exit code, reason, beginning of the message)
CHECKS = {
    "exit": (200, "Error", ""),
    "spin": (143, "Error", "stopped"),
    "sleep": (143, "Error", "stopped"),
    "memory": (137, "OOMKilled", "trap UNREACHABLE"),
    "recursion": (134, "Error", "trap STACK_OVERFLOW"),
    "bounds": (134, "Error", "trap MEMORY_OUT_OF_BOUNDS"),
    "table": (7, "Error", ""),
    "log": (0, "Completed", ""),
}
_LOG = [b"stderr F b", b"stdout F ac"]

# An isolated guest can always be ended with its process, so it needs less.
_ISOLATED_NEEDS = ("exit", "log", "memory", "bounds")


def classes_offered(results: dict[str, str]) -> list[str]:
    offered = []
    if results and all(result == "ok" for result in results.values()):
        offered.append("shared")
    if all(results.get(name) == "ok" for name in _ISOLATED_NEEDS):
        offered.append("isolated")
    return offered


def run_checks(directory: Path) -> dict[str, str]:
    """check → "ok" or what went wrong. Runs guest code: call in a child. `directory` is for a log file."""
    try:
        sandbox = Sandbox()
        for name, text in _MODULES.items():
            sandbox.add(name, wat2wasm(text))
    except (ModuleError, Exception) as error:  # noqa: BLE001 (whatever it is, it is the result)
        return dict.fromkeys(CHECKS, f"wasmtime is not usable: {error}")
    guests: dict[int, Guest] = {}
    callbacks = (deadline_callback(), stderr_callback(lambda number, data: guests[number].take_stderr(data)))
    results = {}
    with tempfile.TemporaryDirectory(dir=directory) as logs:
        for number, name in enumerate(CHECKS):
            spec = RunSpec(name, "", name, log=str(Path(logs, name)), memory_limit=_MEMORY)
            guest = guests[number] = Guest(spec, RunState(name, "running"), number)

            def run(guest: Guest = guest) -> RunState:
                return execute(guest, sandbox, callbacks, watch=_ignore, unwatch=_ignore, started=lambda: None)

            state = _watched(run, guest, sandbox)
            results[name] = _judge(name, state, Path(spec.log))
    return results


def _ignore(_: Guest) -> None:
    """Output is taken at the end."""


def _watched(run: Callable[[], RunState], guest: Guest, sandbox: Sandbox) -> RunState | None:
    """The run's end; None when it did not end. A check named for what must be stopped is stopped."""
    ended: list[RunState] = []
    thread = threading.Thread(target=lambda: ended.append(run()), daemon=True)
    thread.start()
    if guest.spec.id in ("spin", "sleep"):
        thread.join(0.01)
        guest.interruption.ask()
        sandbox.interrupt()
    thread.join(_SECONDS)
    return ended[0] if ended else None


def _judge(name: str, state: RunState | None, log: Path) -> str:
    if state is None:
        return f"did not end within {_SECONDS:.0f} s"
    code, reason, message = CHECKS[name]
    if (state.exit_code, state.reason) != (code, reason) or not state.message.startswith(message):
        return f"ended with {state.exit_code} {state.reason} {state.message[:200]}"
    if name == "log":
        with contextlib.suppress(OSError):
            lines = [line.partition(b"Z ")[2] for line in log.read_bytes().splitlines()]
            return "ok" if lines == _LOG else f"logged {lines!r}"
    return "ok"
