"""Compiling a module in a child process that cannot hurt: niced, and bounded in time and memory.

The child reads the file itself, so that the code it stores is that of the bytes whose digest it checked.
"""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

from cinderctl.wasmrun.capi import EXTERN_FUNC, call, library_path, library_version
from cinderctl.wasmrun.compile_cache import cache_key, store
from cinderctl.wasmrun.sandbox import SETTINGS, ModuleError, Sandbox, exports

__all__ = ["CPU_SECONDS", "MAX_MODULE", "Refused", "compile_into", "engine_key", "read_result", "write_result"]

MAX_MODULE = 64 << 20
# The worst honest module measured, 14 MB of Go, took 17 s on a busy machine.
CPU_SECONDS = 120
_MEMORY = 6 << 30
_NICE = 10

_MAGIC = b"\0asm"
_MODULE, _COMPONENT = b"\x01\0\0\0", b"\x0d\0\x01\0"


class Refused(Exception):  # noqa: N818 (a verdict)
    """(reason, message) as the client's RuntimeRefusedError has them."""


def engine_key() -> str:
    """The key of code compiled by this wasmtime, with these settings, for this CPU."""
    library = library_path().stat()
    return cache_key(
        library_version(), str(library.st_size), str(library.st_mtime_ns), SETTINGS, os.uname().machine, _cpu_features()
    )


def compile_into(directory: Path, key: str, module: str, digest: str) -> None:
    """Compiles the file `module` into the cache. Call in a child of its own. Raises Refused."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    os.nice(_NICE)
    wasm = _read(module, digest)
    sandbox = Sandbox()
    try:
        compiled = sandbox.compile(wasm)
    except ModuleError as error:
        raise Refused("CompileFailed", f"the module is invalid: {error}") from error
    _check_runnable(sandbox, compiled)
    try:
        store(directory, digest, key, sandbox.serialize(compiled))
    except OSError as error:
        raise Refused("Unavailable", f"compiled code cannot be stored: {error}") from error
    call.wasmtime_module_delete(compiled)


def write_result(fd: int, refused: Refused | None) -> None:
    """What a compiler child leaves in its pipe."""
    os.write(fd, json.dumps(list(refused.args) if refused is not None else []).encode())


def read_result(data: bytes) -> Refused | None:
    """Raises ValueError when the child came to no result."""
    found = json.loads(data)
    return Refused(*found) if found else None


def _read(module: str, digest: str) -> bytes:
    import hashlib  # noqa: PLC0415 (OpenSSL, which the zygote does without)

    try:
        fd = os.open(module, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            wasm = file.read(MAX_MODULE + 1)
    except OSError as error:
        raise Refused("BadArgument", f"the module cannot be read: {error.strerror}") from error
    if len(wasm) > MAX_MODULE:
        raise Refused("TooLarge", f"the module is larger than {MAX_MODULE >> 20} MiB")
    if f"sha256:{hashlib.sha256(wasm).hexdigest()}" != digest:
        raise Refused("BadArgument", f"the module's content is not that of {digest}")
    if wasm[:4] != _MAGIC:
        raise Refused("NotWasm", "the file is no WebAssembly module: it does not begin with \\0asm")
    if wasm[4:8] == _COMPONENT:
        raise Refused(
            "IsComponent", "this is a component; the node runs core modules (WASI preview 1, target wasm32-wasip1)"
        )
    if wasm[4:8] != _MODULE:
        raise Refused("NotWasm", f"WebAssembly of an unknown version ({wasm[4:8].hex()})")
    return wasm


def _check_runnable(sandbox: Sandbox, module: int) -> None:
    missing = sandbox.unmet(module)
    if missing:
        shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        old = any(name.startswith("wasi_unstable.") for name in missing)
        hint = "; it was built for the WASI before preview 1" if old else ""
        raise Refused("NotRunnable", f"the module imports what this node does not provide: {shown}{hint}")
    found = exports(module)
    if found.get("_start") != EXTERN_FUNC:
        names = ", ".join(list(found)[:8]) or "nothing"
        raise Refused("NotRunnable", f"the module has no _start function, so it is no command (it exports {names})")
    try:
        sandbox.link(module)
    except ModuleError as error:
        raise Refused("NotRunnable", f"the module cannot be linked: {error}") from error


def _cpu_features() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown"
