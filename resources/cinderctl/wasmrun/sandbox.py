"""The wasmtime engine of one process: settings, linker with our host functions, mapped modules.

Everything that compiles or runs must agree on `SETTINGS`: they are part of the key of compiled code.
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_void_p
from typing import Any

from cinderctl.wasmrun import wasi
from cinderctl.wasmrun.capi import ByteVec, Extern, PointerVec, byte_vec_text, call, error_text

__all__ = [
    "MAX_WASM_STACK",
    "SETTINGS",
    "THREAD_STACK",
    "ModuleError",
    "Sandbox",
    "exports",
    "new_engine",
    "wat2wasm",
]

# Guest code may use this much of its thread's stack; the rest is for the host functions below it. A thread stack at or
# under the wasm stack would let a recursive guest run into the guard page: SIGSEGV for the whole shard.
MAX_WASM_STACK = 512 << 10
THREAD_STACK = 2 << 20

# Threads are off because `memory.atomic.wait` blocks where nothing can interrupt it.
SETTINGS = f"cranelift speed, epochs, no threads, stack {MAX_WASM_STACK}"


class ModuleError(Exception):
    """wasmtime does not accept these bytes, or cannot link them."""


def new_engine() -> int:
    config = call.wasm_config_new()
    call.wasmtime_config_epoch_interruption_set(config, True)
    call.wasmtime_config_max_wasm_stack_set(config, MAX_WASM_STACK)
    call.wasmtime_config_wasm_threads_set(config, False)
    # One compiler child is one CPU's work, however many functions a module has.
    call.wasmtime_config_parallel_compilation_set(config, False)
    engine: int = call.wasm_engine_new_with_config(config)
    return engine


class Sandbox:
    """One engine with its linker. Made in the process that uses it: never across a fork."""

    def __init__(self) -> None:
        self.engine = new_engine()
        self._linker = call.wasmtime_linker_new(self.engine)
        _check(call.wasmtime_linker_define_wasi(self._linker))
        call.wasmtime_linker_allow_shadowing(self._linker, True)
        self._callbacks = wasi.define(self._linker)
        call.wasmtime_linker_allow_shadowing(self._linker, False)
        self._prepared: dict[str, int] = {}

    def compile(self, wasm: bytes) -> int:
        """An owned module. Raises ModuleError with wasmtime's words."""
        module = c_void_p()
        _check(call.wasmtime_module_new(self.engine, wasm, len(wasm), byref(module)))
        return int(module.value or 0)

    def serialize(self, module: int) -> bytes:
        vec = ByteVec()
        _check(call.wasmtime_module_serialize(module, byref(vec)))
        data = ctypes.string_at(vec.data, vec.size)
        call.wasm_byte_vec_delete(byref(vec))
        return data

    def unmet(self, module: int) -> list[str]:
        """The imports (`module.name`) this node has nothing for."""
        store = call.wasmtime_store_new(self.engine, None, None)
        context = call.wasmtime_store_context(store)
        found = Extern()
        missing = []
        for space, name in _imports(module):
            a, b = space.encode(), name.encode()
            if not call.wasmtime_linker_get(self._linker, context, a, len(a), b, len(b), byref(found)):
                missing.append(f"{space}.{name}")
        call.wasmtime_store_delete(store)
        return missing

    def link(self, module: int) -> int:
        """An owned pre-instance. Raises ModuleError when an import is missing or has another type."""
        prepared = c_void_p()
        _check(call.wasmtime_linker_instantiate_pre(self._linker, module, byref(prepared)))
        return int(prepared.value or 0)

    def has(self, digest: str) -> bool:
        return digest in self._prepared

    def load(self, digest: str, path: str) -> None:
        """Maps compiled code that was verified before. Raises ModuleError when wasmtime refuses it."""
        module = c_void_p()
        _check(call.wasmtime_module_deserialize_file(self.engine, path.encode(), byref(module)))
        try:
            prepared = self.link(int(module.value or 0))
        finally:
            call.wasmtime_module_delete(module)
        self._prepared[digest] = prepared

    def add(self, digest: str, wasm: bytes) -> None:
        """Compiles in this process: for the self-test. Raises ModuleError."""
        self._prepared[digest] = self.link(self.compile(wasm))

    def prepared(self, digest: str) -> int:
        """Raises KeyError."""
        return self._prepared[digest]

    def interrupt(self) -> None:
        """Every running guest of this engine soon calls its deadline callback."""
        call.wasmtime_engine_increment_epoch(self.engine)


def exports(module: int) -> dict[str, int]:
    """name → extern kind."""
    vec = PointerVec()
    call.wasmtime_module_exports(module, byref(vec))
    found = {}
    for i in range(vec.size):
        item = vec.data[i]
        name = byte_vec_text(call.wasm_exporttype_name(item).contents)
        found[name] = int(call.wasm_externtype_kind(call.wasm_exporttype_type(item)))
    call.wasm_exporttype_vec_delete(byref(vec))
    return found


def _imports(module: int) -> list[tuple[str, str]]:
    vec = PointerVec()
    call.wasmtime_module_imports(module, byref(vec))
    found = []
    for i in range(vec.size):
        item = vec.data[i]
        space = byte_vec_text(call.wasm_importtype_module(item).contents)
        found.append((space, byte_vec_text(call.wasm_importtype_name(item).contents)))
    call.wasm_importtype_vec_delete(byref(vec))
    return found


def wat2wasm(text: str) -> bytes:
    """Raises ModuleError."""
    source = text.encode()
    vec = ByteVec()
    _check(call.wasmtime_wat2wasm(source, len(source), byref(vec)))
    data = ctypes.string_at(vec.data, vec.size)
    call.wasm_byte_vec_delete(byref(vec))
    return data


def _check(error: Any) -> None:
    if error:
        raise ModuleError(error_text(error))
