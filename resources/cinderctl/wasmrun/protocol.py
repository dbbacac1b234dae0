"""What the node agent and the runtime say to each other.

A frame is a 4-byte big-endian length and that many bytes of JSON. The client sends requests `{"seq": n, "op": ...}`;
the runtime answers each with `{"re": n, ...}` in any order and sends `{"event": {run state}}` whenever a run changes.
The standard library's `json` is used on purpose: the runtime is forked into every shard and stays small.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "MAX_FRAME",
    "REFUSALS",
    "BadFrameError",
    "FrameReader",
    "Mount",
    "RunSpec",
    "RunState",
    "check_module",
    "check_spec",
    "encode_frame",
    "spec_from_json",
    "state_from_json",
    "to_json",
]

# A pod's whole environment may come from several ConfigMaps of up to 1 MiB each.
MAX_FRAME = 16 << 20
_LENGTH = struct.Struct(">I")

REFUSALS = {
    "NotWasm": "the file is no WebAssembly module",
    "IsComponent": "the file is a component; this node runs core modules (WASI preview 1)",
    "TooLarge": "the module is larger than the node accepts",
    "CompileFailed": "the module is invalid, or compiling it took more time or memory than allowed",
    "NotRunnable": "the module has no _start, or needs imports this node does not provide",
    "BadArgument": "the request contradicts itself or names something that is not there",
    "ClassNotOffered": "the runtime's self-test did not pass for this workload class",
    "Unavailable": "the runtime is shutting down or cannot start another process; worth another try",
}
"""Reasons of a refusal: reason → what it means."""

# A run id names a file below runs/.
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_CLASSES = ("shared", "isolated")


class BadFrameError(Exception):
    """The peer sent something that is no frame of ours; the connection cannot be used any more."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One directory a guest sees. `host` and `guest` are absolute paths."""

    host: str
    guest: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One start of one container. `id` is unique for ever: the same id is never run twice.

    `digest` is `sha256:<hex>` of the file `module`. `argv` is exactly what the guest sees (no argv[0] is added). `log`
    is the CRI log file appended to. `memory_limit` in bytes, 0 for the runtime's default. `group` is the pod's uid: its
    containers share a shard. `log_limit_bytes` is the size at which the log file is rotated to
    `<log>.<YYYYmmdd-HHMMSS>` (0 for the default), `log_files` how many files of one log are kept, the current included.
    """

    id: str
    module: str
    digest: str
    argv: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    log: str = ""
    memory_limit: int = 0
    workload_class: str = "shared"
    group: str = ""
    log_limit_bytes: int = 0
    log_files: int = 5


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run is. Times are Unix seconds.

    `state` is `compiling`, `running`, `finished` or `lost`. `exit_code` and `reason` (`Completed`, `Error`,
    `OOMKilled`) are those a container status shows once `finished`; `lost` means that the process around the guest is
    gone through no fault of the guest (reason `RuntimeDied` or `ShardRetired`) and nobody knows how far it came.
    `message` says more, up to 4 KiB. `shard` is the process id that runs or ran it.
    """

    id: str
    state: str
    started_at: float | None = None
    finished_at: float | None = None
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    shard: int = 0

    @property
    def over(self) -> bool:
        return self.state in ("finished", "lost")


def to_json(value: RunSpec | RunState) -> dict[str, Any]:
    return asdict(value)


def spec_from_json(raw: Mapping[str, Any]) -> RunSpec:
    """Raises TypeError, ValueError or KeyError on anything that is no RunSpec."""
    return RunSpec(
        id=str(raw["id"]),
        module=str(raw["module"]),
        digest=str(raw["digest"]),
        argv=tuple(str(a) for a in raw.get("argv", ())),
        env=tuple((str(k), str(v)) for k, v in raw.get("env", ())),
        mounts=tuple(Mount(str(m["host"]), str(m["guest"]), bool(m["read_only"])) for m in raw.get("mounts", ())),
        log=str(raw.get("log", "")),
        memory_limit=int(raw.get("memory_limit", 0)),
        workload_class=str(raw.get("workload_class", "shared")),
        group=str(raw.get("group", "")),
        log_limit_bytes=int(raw.get("log_limit_bytes", 0)),
        log_files=int(raw.get("log_files", 5)),
    )


def state_from_json(raw: Mapping[str, Any]) -> RunState:
    """Unknown keys are dropped, so that an older agent reads a newer runtime."""
    known = {name: raw[name] for name in RunState.__slots__ if name in raw}
    return RunState(**known)


def check_spec(spec: RunSpec) -> str:
    """What is wrong with `spec` by itself, in words; empty when nothing is. The disk is not looked at."""
    if not _RUN_ID.match(spec.id):
        return f"run id {spec.id!r} must be 1 to 200 letters, digits, dots, dashes or underscores"
    problem = check_module(spec.module, spec.digest)
    if problem:
        return problem
    if spec.workload_class not in _CLASSES:
        return f"workload class {spec.workload_class!r} is none of {', '.join(_CLASSES)}"
    for what, path in (("log", spec.log), *(("mount", m.host) for m in spec.mounts)):
        if not path.startswith("/") or "\0" in path:
            return f"{what} path {path!r} is not absolute"
    for argument in spec.argv:
        # wasmtime would silently cut the argument there.
        if "\0" in argument:
            return "an argument contains a NUL character"
    for name, value in spec.env:
        if not name or "=" in name or "\0" in name or "\0" in value:
            return f"environment variable {name!r} has an impossible name or contains a NUL character"
    for mount in spec.mounts:
        if not mount.guest.startswith("/") or "\0" in mount.guest:
            return f"mount path {mount.guest!r} is not absolute"
    if spec.memory_limit < 0 or spec.log_limit_bytes < 0 or spec.log_files < 1:
        return "a limit is negative, or no log file is to be kept"
    return ""


def check_module(module: str, digest: str) -> str:
    """What is wrong with a module's path and digest by themselves, in words; empty when nothing is."""
    if not _DIGEST.match(digest):
        return f"digest {digest!r} is not sha256:<64 hex digits>"
    if not module.startswith("/") or "\0" in module:
        return f"module path {module!r} is not absolute"
    return ""


def encode_frame(message: Mapping[str, Any]) -> bytes:
    """Raises BadFrameError when the message is longer than a frame may be."""
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    if len(body) > MAX_FRAME:
        raise BadFrameError(f"a message of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a byte stream into messages."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages completed by `data`. Raises BadFrameError."""
        buffer = self._buffer
        buffer += data
        messages = []
        while len(buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer)
            if size > MAX_FRAME:
                raise BadFrameError(f"a frame claims {size} bytes")
            if len(buffer) < _LENGTH.size + size:
                break
            body = bytes(buffer[_LENGTH.size : _LENGTH.size + size])
            del buffer[: _LENGTH.size + size]
            try:
                message = json.loads(body)
            except ValueError as error:
                raise BadFrameError(f"a frame is no JSON: {error}") from error
            if not isinstance(message, dict):
                raise BadFrameError("a frame is no JSON object")
            messages.append(message)
        return messages
