"""Something that runs under a supervisor, a process or a task: how it ends, and how to end it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from cinderctl.host.identity import Identity, is_alive
from cinderctl.host.logs import CURRENT
from cinderctl.host.process import end_group, reap, send_signal

__all__ = ["Execution", "ProcessExecution", "TaskExecution", "TaskFactory"]

# (config, cluster root): runs until cancelled.
TaskFactory: TypeAlias = Callable[[Mapping[str, Any], Path], Awaitable[None]]

_KILL_PATIENCE = 10.0
_POLL = 0.25  # seconds between looks where the kernel has no pidfds

_log = logging.getLogger(__name__)


class Execution(Protocol):
    identity: Identity | None

    async def ended(self) -> str:
        """Wait for the end and say how: `exit 1`, `signal 9`, `error: ...`."""
        ...

    async def stop(self, grace: float) -> None:
        """Ask, and after `grace` seconds force. Returns when it has ended."""
        ...


class ProcessExecution:
    """A process, our child or one taken over from an earlier supervisor."""

    def __init__(self, identity: Identity) -> None:
        self.identity: Identity | None = identity
        self._process = identity
        self._end: asyncio.Task[str] = asyncio.create_task(self._watch())

    async def ended(self) -> str:
        return await asyncio.shield(self._end)

    async def stop(self, grace: float) -> None:
        number, patience = signal.SIGTERM, grace
        while send_signal(self._process, number):
            if (await asyncio.wait({self._end}, timeout=patience))[0]:
                return
            if number == signal.SIGKILL:  # stuck in the kernel: starting another beside it would be worse than waiting
                _log.error("process %d does not end", self._process.pid)
            number, patience = signal.SIGKILL, _KILL_PATIENCE
        await asyncio.wait({self._end})

    def let_go(self) -> None:
        """Stop watching; the process lives on."""
        self._end.cancel()

    async def _watch(self) -> str:
        try:
            descriptor = os.pidfd_open(self._process.pid)
        except ProcessLookupError:
            return self._over()
        except (OSError, AttributeError):
            while is_alive(self._process):  # noqa: ASYNC110  # there is nobody to set an event
                await asyncio.sleep(_POLL)
            return self._over()
        try:
            # Only now the descriptor is known to be of this very process, and not of a later one with its pid.
            if is_alive(self._process):
                await _readable(descriptor)
        finally:
            os.close(descriptor)
        return self._over()

    def _over(self) -> str:
        end_group(self._process)  # before reaping: until then the pid, and so the group's number, is still its own
        return reap(self._process)


class TaskExecution:
    """A coroutine inside the supervisor, with a log of its own."""

    identity: Identity | None = None

    def __init__(self, name: str, factory: TaskFactory, config: Mapping[str, Any], root: Path) -> None:
        self._name = name
        self._task = asyncio.create_task(self._run(factory, config, root), name=name)

    async def ended(self) -> str:
        return await asyncio.shield(self._task)

    async def stop(self, grace: float) -> None:
        self._task.cancel()
        if not (await asyncio.wait({self._task}, timeout=grace))[0]:
            _log.error("task %s does not end when asked to: given up", self._name)

    async def _run(self, factory: TaskFactory, config: Mapping[str, Any], root: Path) -> str:
        CURRENT.set(self._name)
        try:
            await factory(config, root)
        except asyncio.CancelledError:
            return "stopped"
        except Exception as error:  # noqa: BLE001  # whatever ends a task, the supervisor and the others go on
            _log.exception("task %s failed", self._name)
            return f"error: {error or type(error).__name__}"
        return "returned"


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def finish() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, finish)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
