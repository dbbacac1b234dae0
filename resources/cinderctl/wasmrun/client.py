"""The node agent's side of the runtime: asyncio, one connection, no wasmtime.

The connection does not reconnect by itself: when the runtime goes away, requests raise `RuntimeGoneError` and
`events()` ends. Connect anew, call `list()` for what was missed, and go on. Runs do not notice a client that goes.

RuntimeRefusedError   the runtime will not do it; `.reason` is one of `protocol.REFUSALS`
RuntimeGoneError      no runtime at the other end (transient: the supervisor starts a new one)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

from cinderctl.core.diagnostics import CinderError, TransientError
from cinderctl.wasmrun.channel import socket_name
from cinderctl.wasmrun.protocol import (
    BadFrameError,
    FrameReader,
    RunSpec,
    RunState,
    encode_frame,
    state_from_json,
    to_json,
)

__all__ = ["RuntimeClient", "RuntimeGoneError", "RuntimeRefusedError"]

_CHUNK = 1 << 16


class RuntimeRefusedError(CinderError):
    """`reason` is a key of `protocol.REFUSALS`; `message` is for the pod's status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class RuntimeGoneError(TransientError):
    pass


class RuntimeClient:
    """One connection to a runtime. Made by `await RuntimeClient.connect(...)`, ended by `close()` or `async with`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last = 0
        self._events: asyncio.Queue[RunState | None] = asyncio.Queue()
        self._gone = ""
        self._receiving = asyncio.create_task(self._receive(reader))

    @classmethod
    async def connect(cls, socket: str | Path, timeout: float = 5.0) -> Self:  # noqa: ASYNC109 (a retry loop)
        """Waits up to `timeout` seconds for the runtime to listen. Raises RuntimeGoneError."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            try:
                with socket_name(Path(socket)) as name:
                    reader, writer = await asyncio.open_unix_connection(name)
                return cls(reader, writer)
            except OSError as error:
                if asyncio.get_running_loop().time() >= deadline:
                    raise RuntimeGoneError(
                        "the wasm runtime does not answer", detail=f"{socket}: {error}", retry_after=0.5
                    ) from error
            await asyncio.sleep(0.02)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def closed(self) -> bool:
        return bool(self._gone)

    async def close(self) -> None:
        self._receiving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._receiving
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def run(self, spec: RunSpec) -> RunState:
        """Starts a run and returns its state once the guest is on its way (after compiling, where the module is new).

        The same id again starts nothing and returns the state of the run there is. Raises RuntimeRefusedError,
        RuntimeGoneError.
        """
        return state_from_json((await self._request({"op": "run", "spec": to_json(spec)}))["state"])

    async def stop(self, id: str, grace: float) -> None:  # noqa: A002 (the contract's word)
        """Ends a run: the guest is interrupted at once (143).

        If it still runs after `grace` seconds its process is killed (137). Returns when the runtime knows; the end
        itself is an event. Absence and an ended run are success.
        """
        await self._request({"op": "stop", "id": id, "grace": grace})

    async def forget(self, id: str) -> None:  # noqa: A002
        """Drops the durable outcome of an ended run. Absence is success; a living run is refused (BadArgument)."""
        await self._request({"op": "forget", "id": id})

    async def list(self) -> list[RunState]:
        return [state_from_json(raw) for raw in (await self._request({"op": "list"}))["states"]]

    async def prepare(self, module: str | Path, digest: str) -> None:
        """Compiles a module file into the cache; done at once when it is there. Raises RuntimeRefusedError."""
        await self._request({"op": "prepare", "module": str(module), "digest": digest})

    async def info(self) -> dict[str, Any]:
        """About the runtime.

        `wasmtime` (version), `classes` (offered), `selftest` (check → "ok" or what went wrong), `pid`, `shards` and
        `runs` (counts).
        """
        answer: dict[str, Any] = (await self._request({"op": "info"}))["info"]
        return answer

    async def events(self) -> AsyncIterator[RunState]:
        """State changes in order, from the moment of `connect` on. Ends when the connection does. One consumer."""
        while (state := await self._events.get()) is not None:
            yield state
        self._events.put_nowait(None)

    async def _request(self, message: dict[str, Any]) -> dict[str, Any]:
        if self._gone:
            raise RuntimeGoneError("the wasm runtime is gone", detail=self._gone)
        self._last += 1
        seq = self._last
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[seq] = future
        try:
            try:
                self._writer.write(encode_frame({"seq": seq, **message}))
                await self._writer.drain()
            except BadFrameError as error:
                raise RuntimeRefusedError("BadArgument", str(error)) from error
            except OSError as error:
                raise RuntimeGoneError("the wasm runtime is gone", detail=str(error)) from error
            answer = await future
        finally:
            self._waiting.pop(seq, None)
        if "refused" in answer:
            raise RuntimeRefusedError(answer["refused"], answer.get("message", ""))
        return answer

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        frames = FrameReader()
        why = "the connection ended"
        try:
            while data := await reader.read(_CHUNK):
                for message in frames.feed(data):
                    self._take(message)
        except (OSError, BadFrameError) as error:
            why = str(error)
        finally:
            self._gone = why
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(RuntimeGoneError("the wasm runtime is gone", detail=why))
            self._events.put_nowait(None)

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._events.put_nowait(state_from_json(message["event"]))
            return
        future = self._waiting.get(message.get("re", 0))
        if future is not None and not future.done():
            future.set_result(message)
