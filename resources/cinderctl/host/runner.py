"""The life of one component: wait, start, become ready, end, wait longer, start again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.components import Component, ComponentStatus, delete_status, mark_of, save_status
from cinderctl.host.dirs import ClusterDir
from cinderctl.host.executions import Execution, ProcessExecution, TaskExecution, TaskFactory
from cinderctl.host.files import StorageError
from cinderctl.host.identity import MARK, Identity
from cinderctl.host.probes import prober
from cinderctl.host.process import ProcessError, spawn

__all__ = ["Board", "Runner", "Timing"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. `settled`: a component that ran this long is started again at once when it ends; else after
    `backoff_first`, doubling to `backoff_max`. `probe` and `probe_slow`: between looks at a component that starts, and
    at one that is late."""

    probe: float = 0.02
    probe_slow: float = 1.0
    settled: float = 10.0
    backoff_first: float = 0.2
    backoff_max: float = 30.0
    housekeeping: float = 30.0


class Board(Protocol):
    """What the runners of a supervisor share."""

    directory: ClusterDir
    tasks: Mapping[str, TaskFactory]
    timing: Timing
    runners: dict[str, Runner]
    closing: bool  # everything is being stopped, and its definitions stay

    def notify(self) -> None:
        """Some runner changed."""
        ...

    async def changed(self) -> None:
        """Wait until some runner changes."""
        ...


class Runner:
    """One name. `wanted` is what should run under it; None once it is to end.

    `after` and `stop_grace` are kept for the order of ends; `busy`: something runs, or is being ended.
    """

    def __init__(self, board: Board, name: str, status: ComponentStatus | None, leftover: Identity | None) -> None:
        self.name = name
        self.wanted: Component | None = None
        self.after: tuple[str, ...] = ()
        self.status = status or ComponentStatus(name, since=time.time())
        self._board = board
        self._leftover = leftover
        self._leftover_digest = self.status.digest
        self.busy = False
        self.stop_grace = 10.0
        self._wake = asyncio.Event()
        self._grace: float | None = None
        self._streak = 0
        self._paused = False
        self._begun = False

    def want(self, component: Component | None, *, grace: float | None = None) -> None:
        """Run this definition, or (None) nothing, stopping within `grace` seconds instead of the component's own."""
        if component is None:
            self._grace = grace
            if self.wanted is not None:
                self.wanted = None
                self._wake.set()
            return
        if self.wanted is not None and self.wanted.digest == component.digest:
            return
        keeps = self._leftover is not None and self._leftover_digest == component.digest
        self.wanted, self.after, self.stop_grace = component, component.after, component.stop_grace
        if not keeps:
            self._fresh(component)
        self._wake.set()

    def restart(self) -> None:
        """Stop what runs and start it again now."""
        if self.wanted is not None:
            self._fresh(self.wanted)
            self._wake.set()

    def retry(self) -> None:
        """Try now what is waiting to be tried again; leaves alone what runs."""
        if self._paused and self.wanted is not None:
            self._fresh(self.wanted)
            self._wake.set()

    def acknowledge(self) -> None:
        """Forget the unexpected exits."""
        self._set(unexpected_exits=0)

    async def run(self) -> None:
        """Until nothing is wanted and nothing runs. Cancelled, it lets go of its process."""
        while True:
            self._wake.clear()
            component = self.wanted
            if component is None:
                break
            await self._live(component)
        if self._leftover is not None:
            await self._stop(ProcessExecution(self._leftover), self.stop_grace)
        if self._board.closing:
            self._set(state="stopped", identity=None, error="")
        else:
            self._board.runners.pop(self.name, None)
            try:
                delete_status(self._board.directory, self.name)
            except StorageError as error:
                _log.warning("%s", error)
            self._board.notify()

    async def _live(self, component: Component) -> None:
        """From start to end of one process or task, and the pause after it."""
        execution = await self._take_over(component)
        if execution is None:
            if not await self._unless_woken(self._dependencies(component)):
                return
            execution = self._start(component)
            if execution is None:
                await self._pause(self._next_delay())
                return
        self.busy = True
        began = time.monotonic()
        ended = asyncio.create_task(execution.ended())
        readiness = asyncio.create_task(self._until_ready(component))
        woken = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({ended, woken}, return_when=asyncio.FIRST_COMPLETED)
            readiness.cancel()
            if not ended.done():
                await self._stop(execution, component.stop_grace)
                return
            how = ended.result()
        except asyncio.CancelledError:
            await self._let_go(execution, component)
            raise
        finally:
            for task in (ended, readiness, woken):
                task.cancel()
        self.busy = False
        _log.warning("%s ended: %s", self.name, how)
        if time.monotonic() - began >= self._board.timing.settled:
            self._streak = 0
            delay = 0.0
        else:
            delay = self._next_delay()
        exits = self.status.unexpected_exits + 1
        self._set(state="backoff", identity=None, last_exit=how, unexpected_exits=exits, error="")
        await self._pause(delay)

    async def _take_over(self, component: Component) -> Execution | None:
        leftover, self._leftover = self._leftover, None
        if leftover is None:
            return None
        execution = ProcessExecution(leftover)
        if self._leftover_digest == component.digest and component.argv:
            _log.info("takes over %s (pid %d)", self.name, leftover.pid)
            return execution
        await self._stop(execution, component.stop_grace)
        return None

    async def _dependencies(self, component: Component) -> None:
        while True:
            runners = self._board.runners
            missing = [name for name in component.after if name not in runners or runners[name].status.state != "ready"]
            if not missing:
                return
            self.status = replace(self.status, error=f"waits for {', '.join(missing)}")
            await self._board.changed()

    def _start(self, component: Component) -> Execution | None:
        again = self.status.state == "backoff" or (self.status.state == "failed" and self._begun)
        restarts = self.status.restarts + 1 if again else self.status.restarts
        root = self._board.directory.root
        try:
            if component.task:
                factory = self._board.tasks.get(component.task)
                if factory is None:
                    raise ProcessError(f"there is no task {component.task!r}")
                execution: Execution = TaskExecution(component.name, factory, component.config, root)
                self._set(state="running", identity=None, restarts=restarts, error="")
            else:
                execution = ProcessExecution(self._spawn(component, restarts))
        except CinderError as error:
            _log.warning("cannot start %s: %s", self.name, error)
            self._set(state="failed", identity=None, error=str(error))
            return None
        self._begun = True
        return execution

    def _spawn(self, component: Component, restarts: int) -> Identity:
        directory = self._board.directory

        def record(identity: Identity) -> None:
            running = replace(
                self.status, state="running", identity=identity, restarts=restarts, error="", since=time.time()
            )
            save_status(directory, running)
            self.status = running

        identity = spawn(
            component.argv,
            env={**component.env, MARK: f"{mark_of(directory)}#{component.name}"},
            cwd=Path(component.cwd) if component.cwd else directory.root,
            log=directory.log(component.name),
            nofile=component.nofile,
            record=record,
        )
        self._board.notify()
        return identity

    async def _until_ready(self, component: Component) -> None:
        if self.status.state == "ready":  # taken over
            return
        timing, look = self._board.timing, prober(component.probe)
        deadline = time.monotonic() + component.probe.timeout
        interval = timing.probe
        while True:
            begun = time.monotonic()
            reason = await look()
            if not reason:
                break
            if time.monotonic() > deadline and self.status.state != "failed":
                self._set(state="failed", error=f"not ready after {component.probe.timeout:g} s: {reason}")
                interval = timing.probe_slow
            elif self.status.state != "failed":
                self.status = replace(self.status, error=reason)
            # At most a seventh of the time goes into looking: a starting server needs the processor itself.
            await asyncio.sleep(max(interval, min(0.1, 6 * (time.monotonic() - begun))))
        self._set(state="ready", error="")

    async def _stop(self, execution: Execution, grace: float) -> None:
        self.busy = True
        if self.wanted is None:
            await self._dependents_gone()
        if self._grace is not None:
            grace, self._grace = self._grace, None
        await execution.stop(grace)
        self._leftover, self.busy = None, False
        self._set(identity=None)

    async def _dependents_gone(self) -> None:
        """Wait for those that were started after this one and are ending too."""

        def left() -> bool:
            return any(
                self.name in other.after and other.wanted is None and other.busy
                for other in self._board.runners.values()
                if other is not self
            )

        # Bounded: definitions changed while they ran may form a circle.
        patience = 5.0 + sum(other.stop_grace for other in self._board.runners.values() if other is not self)
        try:
            async with asyncio.timeout(patience):
                while left():
                    await self._board.changed()
        except TimeoutError:
            _log.warning("%s is stopped before what needs it", self.name)

    async def _let_go(self, execution: Execution, component: Component) -> None:
        if isinstance(execution, ProcessExecution):
            execution.let_go()
        else:
            await self._stop(execution, component.stop_grace)
            self._set(state="stopped")

    async def _pause(self, delay: float) -> None:
        self._paused = True
        try:
            await self._unless_woken(asyncio.sleep(delay))
        finally:
            self._paused = False

    def _next_delay(self) -> float:
        timing = self._board.timing
        delay = min(timing.backoff_max, timing.backoff_first * 2.0 ** min(self._streak, 30))
        self._streak += 1
        return delay

    async def _unless_woken(self, doing: Awaitable[Any]) -> bool:
        """True when it was done, False when something else is wanted meanwhile."""
        work, woken = asyncio.ensure_future(doing), asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({work, woken}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return False
            work.result()
            return True
        finally:
            work.cancel()
            woken.cancel()

    def _fresh(self, component: Component) -> None:
        self._streak, self._begun = 0, False
        self._set(state="starting", digest=component.digest, restarts=0, error="")

    def _set(self, **changes: Any) -> None:
        """Change the status, here and in its file. Not being able to write is no reason to stop: who asks us knows."""
        if "state" in changes and changes["state"] != self.status.state:
            changes["since"] = time.time()
        self.status = replace(self.status, **changes)
        try:
            save_status(self._board.directory, self.status)
        except StorageError as error:
            _log.warning("%s", error)
        self._board.notify()
