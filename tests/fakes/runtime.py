"""A wasm runtime in memory, behind the shape of `wasmrun.client.RuntimeClient`: runs go on when a client leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cinderctl.wasmrun.client import RuntimeGoneError, RuntimeRefusedError
from cinderctl.wasmrun.protocol import RunSpec, RunState, check_spec

__all__ = ["FakeRuntime"]


class FakeRuntime:
    """The runtime process. `exits`: container name → exit code it ends with at once; others run until told."""

    def __init__(self) -> None:
        self.states: dict[str, RunState] = {}
        self.specs: dict[str, RunSpec] = {}
        self.started: list[str] = []
        self.stopped: list[tuple[str, float]] = []
        self.forgotten: list[str] = []
        self.exits: dict[str, int] = {}
        self.refuse: dict[str, tuple[str, str]] = {}  # container name → (reason, message)
        self.clients: list[_Client] = []
        self.ignores_stop = False
        self.away = False

    async def connect(self) -> _Client:
        if self.away:
            await asyncio.sleep(0.01)
            raise RuntimeGoneError("the wasm runtime does not answer", retry_after=0.01)
        client = _Client(self)
        self.clients.append(client)
        return client

    def finish(self, run: str, code: int = 0, *, reason: str = "", message: str = "") -> None:
        now = time.time()
        self._change(
            replace(
                self.states[run],
                state="finished",
                exit_code=code,
                finished_at=now,
                reason=reason or ("Completed" if code == 0 else "Error"),
                message=message,
            )
        )

    def lose(self, run: str) -> None:
        self._change(
            replace(self.states[run], state="lost", finished_at=time.time(), reason="ShardRetired", message="sibling")
        )

    def die(self) -> None:
        """The process is killed; the next one finds its runs lost."""
        self.states = {
            run: state if state.over else replace(state, state="lost", reason="RuntimeDied", finished_at=time.time())
            for run, state in self.states.items()
        }
        for client in self.clients:
            client.hang_up()

    def _change(self, state: RunState) -> None:
        self.states[state.id] = state
        for client in self.clients:
            client.tell(state)

    def start(self, spec: RunSpec) -> RunState:
        if spec.id in self.states:
            return self.states[spec.id]
        problem = check_spec(spec)
        if problem:
            raise RuntimeRefusedError("BadArgument", problem)
        container = spec.id.split(".")[1]
        if container in self.refuse:
            raise RuntimeRefusedError(*self.refuse[container])
        self.specs[spec.id] = spec
        self.started.append(spec.id)
        state = RunState(spec.id, "running", started_at=time.time(), shard=1)
        self._change(state)
        if container in self.exits:
            self.finish(spec.id, self.exits[container])
        return state


class _Client:
    def __init__(self, runtime: FakeRuntime) -> None:
        self._runtime = runtime
        self._events: asyncio.Queue[RunState | None] = asyncio.Queue()
        self._gone = False

    def tell(self, state: RunState) -> None:
        self._events.put_nowait(state)

    def hang_up(self) -> None:
        self._gone = True
        self._events.put_nowait(None)

    def _check(self) -> None:
        if self._gone:
            raise RuntimeGoneError("the wasm runtime is gone")

    async def run(self, spec: RunSpec) -> RunState:
        await asyncio.sleep(0)
        self._check()
        return self._runtime.start(spec)

    async def stop(self, id: str, grace: float) -> None:  # noqa: A002
        await asyncio.sleep(0)
        self._check()
        self._runtime.stopped.append((id, grace))
        state = self._runtime.states.get(id)
        if state is not None and not state.over and not self._runtime.ignores_stop:
            self._runtime.finish(id, 143, reason="Error")

    async def forget(self, id: str) -> None:  # noqa: A002
        await asyncio.sleep(0)
        self._check()
        self._runtime.forgotten.append(id)
        self._runtime.states.pop(id, None)

    async def list(self) -> list[RunState]:
        self._check()
        return list(self._runtime.states.values())

    async def prepare(self, module: str | Path, digest: str) -> None:
        self._check()

    async def info(self) -> dict[str, Any]:
        self._check()
        return {"wasmtime": "50.0.0", "classes": ["shared", "isolated"]}

    async def events(self) -> AsyncIterator[RunState]:
        while (state := await self._events.get()) is not None:
            yield state

    async def close(self) -> None:
        if self in self._runtime.clients:
            self._runtime.clients.remove(self)
