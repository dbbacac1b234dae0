"""The parts that need no runtime process."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wasmtime
from wasmtime import _bindings, _ffi

from cinderctl.wasmrun import capi, outcome
from cinderctl.wasmrun.channel import Channel, socket_name
from cinderctl.wasmrun.compile_cache import CompileCache, cache_key, store
from cinderctl.wasmrun.protocol import (
    BadFrameError,
    FrameReader,
    Mount,
    RunSpec,
    RunState,
    encode_frame,
    spec_from_json,
    state_from_json,
    to_json,
)
from cinderctl.wasmrun.selftest import CHECKS, classes_offered

DIGEST = "sha256:" + "a" * 64


def shape(kind: Any) -> str:
    """What matters of a C type: `void`, `pointer`, or its size and signedness."""
    if kind is None:
        return "void"
    if issubclass(kind, (ctypes._Pointer, ctypes._CFuncPtr, ctypes.c_void_p, ctypes.c_char_p)):
        return "pointer"
    signed = "signed" if kind in (ctypes.c_int64, ctypes.c_ssize_t, ctypes.c_int) else ""
    return f"{ctypes.sizeof(kind)} {signed}"


@pytest.mark.parametrize("name", sorted(capi.FUNCTIONS))
def test_declarations_agree_with_those_wasmtime_generates(name: str) -> None:
    result, parameters = capi.FUNCTIONS[name]
    theirs = getattr(_bindings, f"_{name}")
    assert shape(result) == shape(theirs.restype)
    assert [shape(p) for p in parameters] == [shape(p) for p in theirs.argtypes]


def test_structures_and_trap_names_agree_with_wasmtimes() -> None:
    for ours, theirs in (
        (capi.ByteVec, _ffi.wasm_byte_vec_t),
        (capi.PointerVec, _ffi.wasm_importtype_vec_t),
        (capi.Extern, _ffi.wasmtime_extern_t),
        (capi.Instance, _ffi.wasmtime_instance_t),
    ):
        assert ctypes.sizeof(ours) == ctypes.sizeof(theirs)
        assert ours._fields_[0][0] == theirs._fields_[0][0]
    assert capi.Extern.of.offset == _ffi.wasmtime_extern_t.of.offset
    assert {code: wasmtime.TrapCode(code).name for code in capi.TRAP_NAMES} == capi.TRAP_NAMES
    assert capi.library_version() == "50.0.1" or capi.library_version().startswith("50.")


def test_the_client_and_the_runtime_stay_light() -> None:
    heavy = ("wasmtime", "asyncio", "hashlib", "shutil", "orjson", "kubernetes", "aiohttp")
    code = f"import sys, cinderctl.wasmrun.zygote; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    code = "import sys, cinderctl.wasmrun.client; print('wasmtime' in sys.modules, 'ctypes' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False False"


def test_specs_and_states_survive_the_wire() -> None:
    spec = RunSpec(
        "id", "/m", DIGEST, ("a", "ü"), (("K", "v=1"),), (Mount("/h", "/g", True),), "/l", 5, "isolated", "pod", 7, 2
    )
    state = RunState("id", "finished", 1.5, 2.5, 137, "OOMKilled", "why\nä", 42)
    reader = FrameReader()
    data = encode_frame({"spec": to_json(spec)}) + encode_frame({"state": {**to_json(state), "later": 1}})
    messages = [m for i in range(len(data)) for m in reader.feed(data[i : i + 1])]
    assert spec_from_json(messages[0]["spec"]) == spec
    assert state_from_json(messages[1]["state"]) == state


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\x01{", b"\0\0\0\x02[]"])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrameError):
        FrameReader().feed(data)


def test_a_channel_carries_descriptors_in_order_and_never_blocks() -> None:
    left, right = (Channel(s) for s in socket.socketpair())
    reading, writing = os.pipe()
    left.send({"n": 1}, (writing,))
    left.send({"n": 2, "pad": "x" * (4 << 20)})
    os.close(writing)
    assert not left.flush()
    got: list[int] = []
    while len(got) < 2:
        left.flush()
        got += [m["n"] for m in right.receive() or []]
    assert got == [1, 2]
    os.write(right.fds[0], b"through")
    assert os.read(reading, 10) == b"through"
    os.close(right.fds.popleft())
    os.close(reading)
    left.close()
    assert right.receive() is None
    right.close()


def test_a_socket_below_a_long_path_can_be_bound(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    with socket.socket(socket.AF_UNIX) as listener, socket_name(deep / "s") as name:
        listener.bind(name)
    assert (deep / "s").is_socket()


def test_compiled_code_is_handed_out_only_with_its_checksum(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path / "c", cache_key("a", "b"))
    assert cache.lookup(DIGEST) == (-1, "")
    store(cache.directory, DIGEST, cache.key, b"code" * 1000)
    fd, _ = cache.lookup(DIGEST)
    assert os.pread(fd, 10000, 0) == b"code" * 1000
    path = next(cache.directory.glob("*.cwasm"))
    data = bytearray(path.read_bytes())
    data[7] ^= 0x10
    path.write_bytes(data)
    assert os.pread(fd, 10000, 0) == b"code" * 1000  # what runs is out of the disk's reach
    found, damage = cache.lookup(DIGEST)
    assert found == -1
    assert "damaged" in damage
    assert not list(cache.directory.iterdir())
    store(cache.directory, DIGEST, cache.key, b"x")
    next(cache.directory.glob("*.json")).write_text("[]")
    assert cache.lookup(DIGEST)[0] == -1
    cache.close()


def test_code_for_another_wasmtime_or_cpu_is_neither_used_nor_kept(tmp_path: Path) -> None:
    store(CompileCache(tmp_path, "0" * 16).directory, DIGEST, "0" * 16, b"old")
    cache = CompileCache(tmp_path, "1" * 16)
    assert cache.lookup(DIGEST)[0] == -1
    cache.sweep()
    assert not list(tmp_path.iterdir())


def test_records_are_read_back_and_the_unfinished_are_lost(tmp_path: Path) -> None:
    done = RunState("done", "finished", 1.0, 2.0, 0, "Completed")
    outcome.record(tmp_path, done, durable=True)
    outcome.record(tmp_path, RunState("open", "running", 1.0), durable=False)
    (tmp_path / "torn.json").write_bytes(b'{"id": "to')
    (tmp_path / ".x.tmp").write_bytes(b"")
    states = outcome.load_all(tmp_path, 9.0)
    assert states["done"] == done
    assert [(states[i].state, states[i].reason, states[i].finished_at) for i in ("open", "torn")] == [
        ("lost", "RuntimeDied", 9.0)
    ] * 2
    assert outcome.load_all(tmp_path, 10.0) == states
    outcome.forget(tmp_path, "done")
    assert outcome.read(tmp_path, "done") is None


@pytest.mark.parametrize(
    ("used", "limit", "stderr", "wanted"),
    [
        (15, 16, b"", True),
        (1, 16, b"", False),
        (1, 16, b"memory allocation of 99 bytes failed", True),
        (1, 16, b"fatal error: runtime: out of memory", True),
        (16, 0, b"out of memory", False),
    ],
)
def test_want_of_memory_is_judged_by_what_is_left(used: int, limit: int, stderr: bytes, wanted: bool) -> None:
    assert outcome.looks_out_of_memory(used, limit, stderr) is wanted


def test_classes_are_offered_by_what_works() -> None:
    fine = dict.fromkeys(CHECKS, "ok")
    assert classes_offered(fine) == ["shared", "isolated"]
    assert classes_offered({**fine, "sleep": "did not end"}) == ["isolated"]
    assert classes_offered({**fine, "exit": "ended with 1"}) == []
    assert classes_offered({}) == []
