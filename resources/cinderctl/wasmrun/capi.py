"""The part of wasmtime's C API the runtime uses, bound by ctypes to the shared library of the `wasmtime` package.

Why not the package's own Python layer: importing it costs 8 MiB in the zygote and every shard, its callbacks keep the
last exception in one process-wide variable (runs on several threads get each other's), and the epoch callback and the
trap of one call are not reachable through it. The C API is the documented, stable surface; a test compares every
declaration here with the package's generated ones, and the self-test at start runs through all of it.

Pointers are plain integers (`c_void_p`), 0 or None being null. Who owns what is said at each function that hands over.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    Union,
    byref,
    c_bool,
    c_char_p,
    c_int64,
    c_size_t,
    c_ssize_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = [
    "DEADLINE_CALLBACK",
    "EXTERN_FUNC",
    "EXTERN_MEMORY",
    "FINALIZER",
    "FUNCTIONS",
    "HOST_CALLBACK",
    "OUTPUT_CALLBACK",
    "TRAP_NAMES",
    "ByteVec",
    "Extern",
    "Instance",
    "LibraryError",
    "PointerVec",
    "byte_vec_text",
    "call",
    "error_text",
    "library_path",
    "library_version",
    "string_array",
    "trap_text",
]


class LibraryError(Exception):
    """The wasmtime package or its shared library is not there."""


class ByteVec(Structure):
    """`wasm_byte_vec_t`, `wasm_name_t`."""

    _fields_ = [("size", c_size_t), ("data", c_void_p)]


class PointerVec(Structure):
    """`wasm_importtype_vec_t`, `wasm_exporttype_vec_t`, `wasm_valtype_vec_t`: all vectors of pointers."""

    _fields_ = [("size", c_size_t), ("data", POINTER(c_void_p))]


class _Func(Structure):
    _fields_ = [("store_id", c_uint64), ("private", c_void_p)]


class _Memory(Structure):
    _fields_ = [("store_id", c_uint64), ("private1", c_uint32), ("private2", c_uint32)]


class _ExternUnion(Union):
    # The widest member of the real union is a table or memory: 24 bytes.
    _fields_ = [("func", _Func), ("memory", _Memory), ("room", c_uint64 * 3)]


class Extern(Structure):
    """`wasmtime_extern_t`."""

    _fields_ = [("kind", c_uint8), ("of", _ExternUnion)]


class Instance(Structure):
    """`wasmtime_instance_t`."""

    _fields_ = [("store_id", c_uint64), ("private", c_size_t)]


EXTERN_FUNC = 0
EXTERN_MEMORY = 3

FINALIZER = CFUNCTYPE(None, c_void_p)
# (env, caller, arguments and results as 16-byte slots, slots) → owned trap or null
HOST_CALLBACK = CFUNCTYPE(c_size_t, c_void_p, c_void_p, c_void_p, c_size_t)
# (context, data, delta*, kind*) → owned error (the guest traps with it) or null
DEADLINE_CALLBACK = CFUNCTYPE(c_size_t, c_void_p, c_void_p, POINTER(c_uint64), POINTER(c_uint8))
# (data, bytes, count) → bytes taken, or a negative errno
OUTPUT_CALLBACK = CFUNCTYPE(c_ssize_t, c_void_p, c_void_p, c_size_t)

TRAP_NAMES = {
    0: "STACK_OVERFLOW",
    1: "MEMORY_OUT_OF_BOUNDS",
    2: "HEAP_MISALIGNED",
    3: "TABLE_OUT_OF_BOUNDS",
    4: "INDIRECT_CALL_TO_NULL",
    5: "BAD_SIGNATURE",
    6: "INTEGER_OVERFLOW",
    7: "INTEGER_DIVISION_BY_ZERO",
    8: "BAD_CONVERSION_TO_INTEGER",
    9: "UNREACHABLE",
    10: "INTERRUPT",
    11: "OUT_OF_FUEL",
    12: "ATOMIC_WAIT_NON_SHARED_MEMORY",
    13: "NULL_REFERENCE",
    14: "ARRAY_OUT_OF_BOUNDS",
    15: "ALLOCATION_TOO_LARGE",
    16: "CAST_FAILURE",
    49: "UNCAUGHT_EXCEPTION",
}

_P = c_void_p
_OUT = POINTER(c_void_p)

# name → (result, parameters)
FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "wasm_config_new": (_P, ()),
    "wasmtime_config_epoch_interruption_set": (None, (_P, c_bool)),
    "wasmtime_config_max_wasm_stack_set": (None, (_P, c_size_t)),
    "wasmtime_config_parallel_compilation_set": (None, (_P, c_bool)),
    "wasmtime_config_wasm_threads_set": (None, (_P, c_bool)),
    "wasmtime_config_native_unwind_info_set": (None, (_P, c_bool)),
    "wasm_engine_new_with_config": (_P, (_P,)),  # takes the config
    "wasm_engine_delete": (None, (_P,)),
    "wasmtime_engine_increment_epoch": (None, (_P,)),
    "wasmtime_wat2wasm": (_P, (c_char_p, c_size_t, POINTER(ByteVec))),
    "wasmtime_module_new": (_P, (_P, _P, c_size_t, _OUT)),
    "wasmtime_module_delete": (None, (_P,)),
    "wasmtime_module_serialize": (_P, (_P, POINTER(ByteVec))),
    "wasmtime_module_deserialize": (_P, (_P, _P, c_size_t, _OUT)),
    "wasmtime_module_deserialize_file": (_P, (_P, c_char_p, _OUT)),
    "wasmtime_module_imports": (None, (_P, POINTER(PointerVec))),
    "wasmtime_module_exports": (None, (_P, POINTER(PointerVec))),
    "wasm_importtype_vec_delete": (None, (POINTER(PointerVec),)),
    "wasm_exporttype_vec_delete": (None, (POINTER(PointerVec),)),
    "wasm_importtype_module": (POINTER(ByteVec), (_P,)),
    "wasm_importtype_name": (POINTER(ByteVec), (_P,)),
    "wasm_exporttype_name": (POINTER(ByteVec), (_P,)),
    "wasm_exporttype_type": (_P, (_P,)),
    "wasm_externtype_kind": (c_uint8, (_P,)),
    "wasm_byte_vec_delete": (None, (POINTER(ByteVec),)),
    "wasm_valtype_new": (_P, (c_uint8,)),
    "wasm_valtype_vec_new": (None, (POINTER(PointerVec), c_size_t, _OUT)),  # takes the types
    "wasm_functype_new": (_P, (POINTER(PointerVec), POINTER(PointerVec))),  # takes both vectors
    "wasm_functype_delete": (None, (_P,)),
    "wasmtime_linker_new": (_P, (_P,)),
    "wasmtime_linker_delete": (None, (_P,)),
    "wasmtime_linker_define_wasi": (_P, (_P,)),
    "wasmtime_linker_allow_shadowing": (None, (_P, c_bool)),
    "wasmtime_linker_define_func_unchecked": (
        _P,
        (_P, c_char_p, c_size_t, c_char_p, c_size_t, _P, HOST_CALLBACK, _P, _P),
    ),
    "wasmtime_linker_get": (c_bool, (_P, _P, c_char_p, c_size_t, c_char_p, c_size_t, POINTER(Extern))),
    "wasmtime_linker_instantiate_pre": (_P, (_P, _P, _OUT)),
    "wasmtime_instance_pre_delete": (None, (_P,)),
    "wasmtime_instance_pre_instantiate": (_P, (_P, _P, POINTER(Instance), _OUT)),
    "wasmtime_instance_export_get": (c_bool, (_P, POINTER(Instance), c_char_p, c_size_t, POINTER(Extern))),
    "wasmtime_store_new": (_P, (_P, _P, _P)),
    "wasmtime_store_delete": (None, (_P,)),
    "wasmtime_store_context": (_P, (_P,)),
    "wasmtime_store_limiter": (None, (_P, c_int64, c_int64, c_int64, c_int64, c_int64)),
    "wasmtime_store_epoch_deadline_callback": (None, (_P, DEADLINE_CALLBACK, _P, _P)),
    "wasmtime_context_set_epoch_deadline": (None, (_P, c_uint64)),
    "wasmtime_context_set_wasi": (_P, (_P, _P)),  # takes the WASI configuration
    "wasmtime_func_call": (_P, (_P, POINTER(_Func), _P, c_size_t, _P, c_size_t, _OUT)),
    "wasmtime_caller_export_get": (c_bool, (_P, c_char_p, c_size_t, POINTER(Extern))),
    "wasmtime_caller_context": (_P, (_P,)),
    "wasmtime_memory_data": (_P, (_P, POINTER(_Memory))),
    "wasmtime_memory_data_size": (c_size_t, (_P, POINTER(_Memory))),
    "wasmtime_error_new": (_P, (c_char_p,)),
    "wasmtime_error_delete": (None, (_P,)),
    "wasmtime_error_message": (None, (_P, POINTER(ByteVec))),
    "wasmtime_trap_new": (_P, (c_char_p, c_size_t)),
    "wasmtime_trap_code": (c_bool, (_P, POINTER(c_uint8))),
    "wasm_trap_message": (None, (_P, POINTER(ByteVec))),
    "wasm_trap_delete": (None, (_P,)),
    "wasi_config_new": (_P, ()),
    "wasi_config_delete": (None, (_P,)),
    "wasi_config_set_argv": (c_bool, (_P, c_size_t, _P)),
    "wasi_config_set_env": (c_bool, (_P, c_size_t, _P, _P)),
    "wasi_config_preopen_dir": (c_bool, (_P, c_char_p, c_char_p, c_bool)),
    "wasi_config_set_stdout_file": (c_bool, (_P, c_char_p)),
    "wasi_config_set_stderr_custom": (None, (_P, OUTPUT_CALLBACK, _P, _P)),
}


def _package() -> Path:
    spec = find_spec("wasmtime")
    if spec is None or not spec.submodule_search_locations:
        raise LibraryError("the Python package `wasmtime` is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def library_path() -> Path:
    """The shared library inside the `wasmtime` package, found without importing the package. Raises LibraryError."""
    machine = {"AMD64": "x86_64", "arm64": "aarch64", "ARM64": "aarch64"}.get(platform.machine(), platform.machine())
    name = "_libwasmtime.dylib" if sys.platform == "darwin" else "_libwasmtime.so"
    path = _package() / f"{sys.platform}-{machine}" / name
    if not path.is_file():
        raise LibraryError(f"wasmtime has no library for {sys.platform} on {machine}")
    return path


def library_version() -> str:
    """The installed package's version, by its metadata directory (`importlib.metadata` would cost 2 MiB)."""
    for found in sorted(_package().parent.glob("wasmtime-*.dist-info")):
        return found.name.removeprefix("wasmtime-").removesuffix(".dist-info")
    return "unknown"


class _Library:
    """The declared functions as attributes, by their C names."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(str(library_path()))
        except OSError as error:
            raise LibraryError(f"wasmtime's library cannot be loaded: {error}") from error
        for name, (result, parameters) in FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, parameters
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise LibraryError(f"{name} is not declared")


call = _Library()
"""The C functions, by their C names: `call.wasmtime_store_new(...)`."""


def byte_vec_text(vec: ByteVec) -> str:
    return ctypes.string_at(vec.data, vec.size).decode("utf-8", "replace") if vec.size else ""


def error_text(error: int) -> str:
    """The message of an owned `wasmtime_error_t`, which is freed."""
    vec = ByteVec()
    call.wasmtime_error_message(error, byref(vec))
    text = byte_vec_text(vec)
    call.wasm_byte_vec_delete(byref(vec))
    call.wasmtime_error_delete(error)
    return text


def trap_text(trap: int) -> tuple[str, str]:
    """(name or "", message) of an owned `wasm_trap_t`, which is freed. The message has the wasm backtrace."""
    code = c_uint8()
    name = ""
    if call.wasmtime_trap_code(trap, byref(code)):
        name = TRAP_NAMES.get(code.value, f"TRAP_{code.value}")
    vec = ByteVec()
    call.wasm_trap_message(trap, byref(vec))
    text = byte_vec_text(vec).rstrip("\0")
    call.wasm_byte_vec_delete(byref(vec))
    call.wasm_trap_delete(trap)
    return name, text


def string_array(strings: list[str]) -> Any:
    """A `char**` of UTF-8 strings; keep the result alive during the call it is for."""
    return (c_char_p * len(strings))(*(s.encode("utf-8", "surrogateescape") for s in strings))
