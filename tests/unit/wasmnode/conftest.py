from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cinderctl.core.diagnostics import CinderError
from cinderctl.kube.aio import AsyncKube
from cinderctl.kube.endpoint import Endpoint
from cinderctl.wasmnode.agent import Agent
from cinderctl.wasmnode.config import NodeConfig, Timing
from cinderctl.wasmnode.images import Pulled
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.runtime import FakeRuntime

FAST = Timing(
    lease_renewal=0.1,
    node_check=0.1,
    backoff_first=0.05,
    backoff_most=0.2,
    pull_backoff_first=0.1,
    pull_backoff_most=0.2,
    setup_retry_first=0.05,
    setup_retry_most=0.1,
    creating_after=0.05,
    refresh=0.1,
    api_retry_first=0.02,
    api_retry_most=0.1,
    last_words=0.1,
    runtime_grace=0.1,
)


@dataclass
class FakePuller:
    """Images by reference; what is missing or an exception fails the pull."""

    images: dict[str, bytes | CinderError] = field(default_factory=lambda: {"registry.example/hello:v1": b"\0asm1"})
    pulls: list[str] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)
    secrets: list[list[str]] = field(default_factory=list)

    def repository(self, reference: str) -> str:
        if " " in reference:
            raise CinderError("invalid reference format")
        return reference.rpartition(":")[0]

    def resolve(self, reference: str, secrets: Sequence[Mapping[str, Any]]) -> str:
        self.resolved.append(reference)
        return self._digest(reference)

    def pull(self, reference: str, dest: Path, secrets: Sequence[Mapping[str, Any]]) -> Pulled:
        self.pulls.append(reference)
        self.secrets.append([s["metadata"]["name"] for s in secrets])
        digest = self._digest(reference)
        data = self.images[reference]
        assert isinstance(data, bytes)
        dest.write_bytes(data)
        return Pulled(dest, f"sha256:{hashlib.sha256(data).hexdigest()}", digest, len(data))

    def _digest(self, reference: str) -> str:
        data = self.images.get(reference, CinderError(f"{reference}: not found"))
        if isinstance(data, CinderError):
            raise data
        return "sha256:" + hashlib.sha256(b"manifest of " + data).hexdigest()


@dataclass
class Lab:
    """One node against one API server; `agent()` runs an agent for a block, as often as wanted."""

    api: FakeApiServer
    runtime: FakeRuntime
    puller: FakePuller
    config: NodeConfig
    timing: Timing = FAST
    logged: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def agent(self, **config: Any) -> AsyncIterator[Agent]:
        changed = replace(self.config, **config)
        connect: Callable[[], Awaitable[Any]] | None = self.runtime.connect
        if "runtime_socket" in config and config["runtime_socket"] is None:
            connect = None
        async with AsyncKube(Endpoint(self.api.url)) as kube:
            agent = Agent(
                changed, kube, timing=self.timing, connect=connect, puller=self.puller, log=self.logged.append
            )
            task = asyncio.create_task(agent.run())
            try:
                yield agent
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def phase(self, path: str, phase: str) -> dict[str, Any]:
        """Wait until a pod is in a phase; its object."""
        found: dict[str, Any] = await self.api.until(
            lambda: self.api.objects[path] if self.api.objects[path]["status"].get("phase") == phase else None
        )
        return found


Run = Callable[[Callable[[Lab], Awaitable[None]]], None]
OWNED = [{"kind": "ReplicaSet", "name": "r", "uid": "u", "apiVersion": "apps/v1", "controller": True}]


def state_of(obj: dict[str, Any], name: str = "c") -> dict[str, Any]:
    """The status of a container of a pod."""
    found: dict[str, Any] = next(c for c in obj["status"]["containerStatuses"] if c["name"] == name)
    return found


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    return NodeConfig(
        cluster="cinder",
        node_name="node-wasi",
        arch="wasm32-wasi",
        server="http://unused",
        ca_file="",
        directory=tmp_path / "node",
        node_ip="10.244.255.1",
        listen_address="127.0.0.1",
        port=3000,
        runtime_socket=Path("/fake.sock"),
        pod_cidr="10.244.1.0/24",
        version="0.1.0",
    )


@pytest.fixture
def run_lab(config: NodeConfig) -> Run:
    """Run an asynchronous test body with a lab."""

    def run(body: Callable[[Lab], Awaitable[None]]) -> None:
        async def inside() -> None:
            async with FakeApiServer().serving() as api:
                await body(Lab(api, FakeRuntime(), FakePuller(), replace(config, server=api.url)))

        asyncio.run(inside())

    return run
