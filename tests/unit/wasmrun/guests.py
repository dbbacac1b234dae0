"""Guests from `tests/guests`, a runtime process, and a client that waits for ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wasmtime

from cinderctl.wasmrun.client import RuntimeClient
from cinderctl.wasmrun.protocol import RunSpec, RunState

__all__ = ["ROOT", "ModuleFile", "Runtime", "Watcher", "gone", "module_file", "watching"]

GUESTS = Path(__file__).parents[2] / "guests"
ROOT = Path(__file__).parents[3]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class ModuleFile:
    path: str
    digest: str


def module_file(directory: Path, wasm: bytes) -> ModuleFile:
    digest = hashlib.sha256(wasm).hexdigest()
    path = directory / f"{digest[:16]}.wasm"
    path.write_bytes(wasm)
    return ModuleFile(str(path), f"sha256:{digest}")


class Runtime:
    """A `python -m cinderctl.wasmrun` of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.socket = directory / "sock"
        self.process: subprocess.Popen[bytes] | None = None
        self._modules: dict[str, ModuleFile] = {}

    def start(self) -> None:
        command = [sys.executable, "-m", "cinderctl.wasmrun", "--directory", str(self.directory / "state")]
        with (self.directory / "runtime.log").open("ab") as log:
            self.process = subprocess.Popen([*command, "--socket", str(self.socket)], stderr=log)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(10)
        self.process = None
        return code

    def said(self) -> str:
        return (self.directory / "runtime.log").read_text()

    def module(self, name: str) -> ModuleFile:
        if name not in self._modules:
            wasm = wasmtime.wat2wasm((GUESTS / f"{name}.wat").read_text())
            self._modules[name] = module_file(self.directory, bytes(wasm))
        return self._modules[name]

    def spec(self, guest: str | ModuleFile, *argv: str, id: str = "", **more: Any) -> RunSpec:  # noqa: A002
        module = self.module(guest) if isinstance(guest, str) else guest
        name = id or f"run-{next(_numbers)}"
        log = str(self.directory / f"{name}.log")
        return RunSpec(name, module.path, module.digest, argv=argv, log=log, **more)

    def log(self, spec: RunSpec) -> list[tuple[str, str, str]]:
        """(stream, tag, text) of each line."""
        lines = Path(spec.log).read_text().splitlines()
        return [tuple(line.split(" ", 3)[1:]) for line in lines]  # type: ignore[misc]


class Watcher:
    """A client whose events are collected, so that an end can be waited for."""

    def __init__(self, client: RuntimeClient) -> None:
        self.client = client
        self.seen: dict[str, list[RunState]] = {}
        self._news = asyncio.Condition()
        self.task = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        async for state in self.client.events():
            async with self._news:
                self.seen.setdefault(state.id, []).append(state)
                self._news.notify_all()

    async def state(self, id: str, *wanted: str, within: float = 10.0) -> RunState:  # noqa: A002
        async with asyncio.timeout(within), self._news:
            while True:
                for state in self.seen.get(id, ()):
                    if state.state in wanted:
                        return state
                await self._news.wait()

    async def end(self, id: str, within: float = 10.0) -> RunState:  # noqa: A002
        return await self.state(id, "finished", "lost", within=within)

    async def run(self, spec: RunSpec, within: float = 10.0) -> RunState:
        await self.client.run(spec)
        return await self.end(spec.id, within)


@contextlib.asynccontextmanager
async def watching(runtime: Runtime) -> AsyncIterator[Watcher]:
    async with await RuntimeClient.connect(runtime.socket, 10.0) as client:
        watcher = Watcher(client)
        try:
            yield watcher
        finally:
            watcher.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher.task


def gone(pid: int, within: float = 5.0) -> bool:
    """Whether a process ends in time; a zombie has ended."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False
