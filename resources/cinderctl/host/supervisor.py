"""One supervisor per directory: runs what `components/` says, answers on `run/supervisor.sock`.

It holds `run/supervisor.lock` as long as it lives, so there is never a second one. Ended by SIGTERM or killed, it
leaves the processes alone (tasks end with it); the next one takes them over. Nothing in here polls while all is well:
ends of processes, requests and changes are events.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cinderctl.core.diagnostics import CinderError, LockedError
from cinderctl.host.components import (
    PROTOCOL,
    Component,
    ComponentStatus,
    Probe,
    delete_status,
    load_components,
    load_status,
    mark_of,
    status_names,
)
from cinderctl.host.dirs import ClusterDir
from cinderctl.host.executions import TaskFactory
from cinderctl.host.files import CorruptFileError, ensure_dir, remove_file, storage_errors, write_json
from cinderctl.host.identity import Identity, find_marked, identity_of, is_alive
from cinderctl.host.logs import ComponentLogHandler, rotate
from cinderctl.host.runner import Runner, Timing
from cinderctl.host.sockets import bind

__all__ = ["Component", "ComponentStatus", "Probe", "TaskFactory", "Timing", "supervise"]

_LOG_LIMIT = 10 * 1024 * 1024
_LOG_FILES = 3

_log = logging.getLogger(__name__)


async def supervise(directory: ClusterDir, tasks: Mapping[str, TaskFactory], *, timing: Timing | None = None) -> None:
    """Supervise a directory until told to go.

    Raises: LockedError when another supervisor has it, StorageError when it cannot be written.
    """
    for path in (directory.root, directory.run, directory.logs, directory.components):
        ensure_dir(path)
    with _lock(directory.run / "supervisor.lock") as lock, _logging(directory.logs):
        await _Supervisor(directory, tasks, timing or Timing(), lock).serve()


class _Supervisor:
    """The `Board` of the runners, and what the control socket asks of them."""

    def __init__(self, directory: ClusterDir, tasks: Mapping[str, TaskFactory], timing: Timing, lock: int) -> None:
        self.directory = directory
        self.tasks = tasks
        self.timing = timing
        self.runners: dict[str, Runner] = {}
        self.closing = False
        self._lock = lock
        self._lives: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._told = asyncio.Event()
        self._stops_components = False
        self._grace: float | None = None
        self._operations: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "hello": self._hello,
            "status": self._status,
            "reconcile": self._reconcile,
            "restart": self._restart,
            "acknowledge": self._acknowledge,
            "shutdown": self._shutdown,
        }

    def notify(self) -> None:
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    async def changed(self) -> None:
        await self._changed.wait()

    async def serve(self) -> None:
        identity = identity_of(os.getpid(), "")
        record = self.directory.run / "supervisor.json"
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        path = self.directory.run / "supervisor.sock"
        server = await asyncio.start_unix_server(self._converse, sock=bind(path))
        write_json(record, {"identity": identity and identity.to_json(), "protocol": PROTOCOL}, durable=False)
        keeping = asyncio.create_task(self._keep_house())
        try:
            self._begin()
            await self._told.wait()
            self.closing = True
            if self._stops_components:
                for runner in self.runners.values():
                    runner.want(None, grace=self._grace)
            else:
                for life in self._lives:
                    life.cancel()
            await asyncio.gather(*self._lives, return_exceptions=True)
        finally:
            keeping.cancel()
            server.close()
            with contextlib.suppress(CinderError):  # the directory itself may be gone
                remove_file(path)
                remove_file(record)

    def _begin(self) -> None:
        """Take over what an earlier supervisor left, then run what is defined."""
        statuses, living = _survivors(self.directory)
        defined, _ = load_components(self.directory)
        for name in living.keys() - defined.keys():
            self._add(name, statuses.get(name), living[name])  # nobody wants it any more: it is stopped
        for name, status in statuses.items():
            if name in defined:
                self._add(name, status, living.get(name), defined[name])
            elif name not in living:
                delete_status(self.directory, name)
        self._reconcile({})

    def _add(
        self, name: str, status: ComponentStatus | None, leftover: Identity | None, wanted: Component | None = None
    ) -> None:
        runner = Runner(self, name, status, leftover)
        self.runners[name] = runner
        if wanted is not None:
            runner.want(wanted)
        life = asyncio.create_task(runner.run(), name=name)
        self._lives.add(life)
        life.add_done_callback(self._end_of_life)

    def _end_of_life(self, life: asyncio.Task[None]) -> None:
        self._lives.discard(life)
        if not life.cancelled() and (error := life.exception()) is not None:
            _log.critical("the runner of %s broke", life.get_name(), exc_info=error)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """JSON lines: `{"op": ...}` in, `{"ok": true, ...}` or `{"ok": false, "error": ...}` out."""
        try:
            if _peer(writer) != os.geteuid():
                _log.warning("refused a caller of another user")
                return
            while line := await reader.readline():
                writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):  # gone, or a line too long for the protocol
            return
        finally:
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            operation = self._operations.get(request["op"])
            if operation is None:
                return {"ok": False, "error": f"unknown operation {request['op']!r}"}
            return {"ok": True, **operation(request)}
        except CinderError as error:
            return {"ok": False, "error": str(error)}
        except (ValueError, KeyError, TypeError) as error:
            return {"ok": False, "error": f"not a request: {error!r}"}

    def _hello(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"protocol": PROTOCOL, "pid": os.getpid(), "closing": self._told.is_set()}

    def _status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {"components": {name: runner.status.to_json() for name, runner in self.runners.items()}}

    def _reconcile(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run what is defined now. `retry`: names to try at once if they wait; `grace`: for those to be stopped."""
        if self._told.is_set():
            return {"closing": True}
        defined, damaged = load_components(self.directory)
        for name, runner in list(self.runners.items()):
            if name not in defined and name not in damaged:  # damaged: better it runs on as it was
                runner.want(None, grace=request.get("grace"))
        for name, component in defined.items():
            if name in self.runners:
                self.runners[name].want(component)
            else:
                self._add(name, None, None, component)
        for name in request.get("retry", ()):
            if name in self.runners:
                self.runners[name].retry()
        return self._status(request)

    def _restart(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._known(request).restart()
        return {}

    def _acknowledge(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._known(request).acknowledge()
        return {}

    def _shutdown(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """End; `stop`: with all components. `unused`: only when none is defined (any more)."""
        if request.get("unused") and any(load_components(self.directory)):
            return {"stays": True}
        self._stops_components = bool(request["stop"])
        self._grace = request.get("grace")
        self._told.set()
        return {}

    def _known(self, request: Mapping[str, Any]) -> Runner:
        runner = self.runners.get(request["name"])
        if runner is None:
            raise CinderError(f"there is no component {request['name']!r}")
        return runner

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(self.timing.housekeeping)
            for path in self.directory.logs.glob("*.log"):
                rotate(path, limit=_LOG_LIMIT, keep=_LOG_FILES)
            if not _is_still(self.directory.run / "supervisor.lock", self._lock):
                _log.error("the directory was removed: stopping what ran in it")
                self._shutdown({"stop": True})


def _survivors(directory: ClusterDir) -> tuple[dict[str, ComponentStatus], dict[str, Identity]]:
    """What the files say, and which processes live: recorded ones, and marked ones whose record was lost."""
    statuses: dict[str, ComponentStatus] = {}
    living: dict[str, Identity] = {}
    for name in status_names(directory):
        try:
            status = load_status(directory, name)
        except CorruptFileError as error:
            _log.warning("%s; made anew", error)
            continue
        if status is None:
            continue
        if status.identity is not None and is_alive(status.identity):
            living[name] = status.identity
        statuses[name] = status if name in living else status.found_dead()
    for name, identity in find_marked(mark_of(directory)).items():
        if name not in living:
            _log.warning("found %s (pid %d) without its record", name, identity.pid)
            living[name] = identity
            statuses[name] = replace(statuses.get(name, ComponentStatus(name)), identity=identity, digest="")
    return statuses, living


def _peer(writer: asyncio.StreamWriter) -> int:
    """User id of the caller (unix(7), SO_PEERCRED: struct ucred)."""
    peer: socket.socket = writer.get_extra_info("socket")
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[int]:
    with storage_errors("open", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(f"another supervisor runs in {path.parent.parent}") from error
        yield descriptor
    finally:
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _logging(logs: Path) -> Iterator[None]:
    handler, root = ComponentLogHandler(logs), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
