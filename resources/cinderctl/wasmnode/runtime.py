"""The agent's line to the runtime of its node: connects anew for ever, knows every run, passes changes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from cinderctl.core.diagnostics import CinderError, TransientError
from cinderctl.wasmrun.client import RuntimeClient, RuntimeGoneError
from cinderctl.wasmrun.protocol import RunSpec, RunState

__all__ = ["Runtime", "RuntimeLink", "connect_to"]


class Runtime(Protocol):
    """What of `RuntimeClient` the agent uses."""

    async def run(self, spec: RunSpec) -> RunState: ...
    async def stop(self, id: str, grace: float) -> None: ...  # noqa: A002 - the contract's word
    async def forget(self, id: str) -> None: ...  # noqa: A002
    async def list(self) -> list[RunState]: ...
    async def prepare(self, module: str | Path, digest: str) -> None: ...
    async def info(self) -> dict[str, Any]: ...
    def events(self) -> AsyncIterator[RunState]: ...
    async def close(self) -> None: ...


def connect_to(socket: Path) -> Callable[[], Awaitable[Runtime]]:
    async def connect() -> Runtime:
        return await RuntimeClient.connect(socket, timeout=5)

    return connect


class RuntimeLink:
    """`on_state` hears of each change; `on_list` of every (re)connection, with all runs there are; `on_change` of the
    runtime coming and going.

    Requests raise RuntimeGoneError while there is no connection, RuntimeRefusedError when the runtime will not.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Runtime]],
        *,
        on_state: Callable[[RunState], None],
        on_list: Callable[[dict[str, RunState]], None],
        on_change: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._connect = connect
        self._on_state = on_state
        self._on_list = on_list
        self._on_change = on_change
        self._on_error = on_error
        self._runtime: Runtime | None = None
        self.ready = asyncio.Event()
        self.runs: dict[str, RunState] = {}
        self.info: dict[str, Any] = {}

    @property
    def connected(self) -> bool:
        return self._runtime is not None

    async def keep(self) -> None:
        """Stay connected until cancelled."""
        pause = 0.05
        while True:
            try:
                runtime = await self._connect()
            except TransientError as error:
                self._on_error(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
                continue
            pause = 0.05
            try:
                await self._attend(runtime)
            except CinderError as error:
                self._on_error(error)
            finally:
                self._runtime = None
                self.ready.clear()
                self._on_change()
                await runtime.close()

    async def _attend(self, runtime: Runtime) -> None:
        self.info = await runtime.info()
        self.runs = {state.id: state for state in await runtime.list()}
        self._runtime = runtime
        self._on_list(self.runs)
        self.ready.set()
        self._on_change()
        async for state in runtime.events():
            self.runs[state.id] = state
            self._on_state(state)

    async def run(self, spec: RunSpec) -> RunState:
        state = await self._line().run(spec)
        self.runs.setdefault(state.id, state)
        return state

    async def stop(self, run: str, grace: float) -> None:
        await self._line().stop(run, grace)

    async def forget(self, run: str) -> None:
        await self._line().forget(run)
        self.runs.pop(run, None)

    async def prepare(self, module: Path, digest: str) -> None:
        await self._line().prepare(module, digest)

    def _line(self) -> Runtime:
        if self._runtime is None:
            raise RuntimeGoneError("the wasm runtime of this node does not answer")
        return self._runtime
