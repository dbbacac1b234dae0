"""The agent as a whole: who it is, what it keeps going, and the order in which that begins."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.files import ensure_dir
from cinderctl.kube.aio import AsyncKube
from cinderctl.wasmnode.config import NodeConfig, Timing
from cinderctl.wasmnode.events import Events
from cinderctl.wasmnode.gc import Collector
from cinderctl.wasmnode.host_facts import host_facts
from cinderctl.wasmnode.identity import Certificate, Identity
from cinderctl.wasmnode.images import ImageStore, Puller
from cinderctl.wasmnode.objects import Objects
from cinderctl.wasmnode.pods import Pods
from cinderctl.wasmnode.puller import OciPuller
from cinderctl.wasmnode.records import RecordStore
from cinderctl.wasmnode.registration import Registration
from cinderctl.wasmnode.runtime import Runtime, RuntimeLink, connect_to
from cinderctl.wasmnode.server import KubeletServer
from cinderctl.wasmnode.services import Services
from cinderctl.wasmnode.status_writer import StatusWriter
from cinderctl.wasmrun.protocol import RunState

__all__ = ["Agent", "log_line", "run_agent"]


def log_line(text: str) -> None:
    """One line of the agent's log (standard error, which the supervisor keeps)."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    sys.stderr.write(f"{stamp}.{int(now % 1 * 1000):03d}Z {text}\n")
    sys.stderr.flush()


class Complaints:
    """Passes errors on to a log; the same trouble again and again is one line."""

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._said = ""

    def __call__(self, error: Exception) -> None:
        text = str(error)
        if isinstance(error, CinderError) and error.diagnostics and error.diagnostics[0].detail:
            text = f"{text} ({error.diagnostics[0].detail})"
        if text != self._said:
            self._said = text
            self._log(text)


class Agent:
    """Everything of one node. `connect` and `puller` are what a test replaces."""

    def __init__(
        self,
        config: NodeConfig,
        kube: AsyncKube,
        *,
        timing: Timing | None = None,
        connect: Callable[[], Awaitable[Runtime]] | None = None,
        puller: Puller | None = None,
        log: Callable[[str], None] = log_line,
    ) -> None:
        self.config = config
        self.kube = kube
        self._log = log
        note = Complaints(log)
        self._timing = timing = timing or Timing()
        self._away_since = time.monotonic()
        ensure_dir(config.directory)
        facts = host_facts(config.directory, config.node_name)
        self._has_runtime = connect is not None or config.runtime_socket is not None
        if connect is None and config.runtime_socket is not None:
            connect = connect_to(config.runtime_socket)
        self.runtime = RuntimeLink(
            connect or _nothing,
            on_state=self._run_changed,
            on_list=self._runs_listed,
            on_change=self._runtime_changed,
            on_error=note,
        )
        self.images = ImageStore(
            config.images_dir,
            puller or OciPuller(config.mirrors_file),
            allow_local=config.allow_local_modules,
            on_error=note,
        )
        self.services = Services(
            config=config,
            timing=timing,
            kube=kube,
            objects=Objects(kube),
            images=self.images,
            runtime=self.runtime,
            records=RecordStore(config.pods_dir, note),
            statuses=StatusWriter(kube, timing, log),
            events=Events(kube, config.node_name, note),
            memory=facts.memory,
            cpus=facts.cpus,
            log=log,
        )
        self.registration = Registration(
            config,
            timing,
            kube,
            facts,
            runtime=self._runtime_info,
            images=self.images.images,
            log=log,
        )
        self.pods = Pods(self.services, self.services.records.load(), lambda: self.registration.labels)
        self.collector = Collector(
            config.pods_dir,
            self.images,
            timing,
            alive=lambda: self.pods.workers,
            in_use=self.pods.images_in_use,
            log=log,
        )

    async def run(self, *background: Coroutine[Any, Any, None]) -> None:
        """Until cancelled; then what is not yet told is told, and pods run on."""
        writer = asyncio.create_task(self.services.records.run(), name="records")
        try:
            async with asyncio.TaskGroup() as group:
                for job in background:
                    group.create_task(job)
                if self._has_runtime:
                    group.create_task(self.runtime.keep(), name="runtime")
                group.create_task(self._register(), name="node")
                group.create_task(self.pods.follow(), name="pods")
                group.create_task(self.services.events.run(), name="events")
                group.create_task(self._collect(), name="gc")
        finally:
            await self._last_words()
            writer.cancel()
            self.images.close()

    def _run_changed(self, state: RunState) -> None:
        self.pods.run_changed(state)

    def _runs_listed(self, runs: Mapping[str, RunState]) -> None:
        self.pods.runs_listed(runs)

    def _runtime_changed(self) -> None:
        if self.runtime.connected:
            self.registration.changed()
        else:
            self._away_since = time.monotonic()
            asyncio.get_running_loop().call_later(self._timing.runtime_grace, self.registration.changed)

    def _runtime_info(self) -> Mapping[str, Any] | None:
        """What the Node says of the runtime: a short absence, as of one that is restarted, is none."""
        if self.runtime.connected:
            return self.runtime.info
        absent = time.monotonic() - self._away_since
        return self.runtime.info if self.runtime.info and absent < self._timing.runtime_grace else None

    async def _register(self) -> None:
        """Not before the runtime answers, if it does so soon: a restarted agent must not call its node NotReady."""
        if self._has_runtime:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.runtime_grace):
                    await self.runtime.ready.wait()
        await self.registration.keep()

    async def _collect(self) -> None:
        """Only once the API's list and the runtime's say what is alive."""
        await self.pods.synced.wait()
        if self._has_runtime:
            await self.runtime.ready.wait()
        self.services.events.node("Normal", "Starting", "Starting the WebAssembly node agent.")
        await self.collector.run()

    async def _last_words(self) -> None:
        try:
            async with asyncio.timeout(self._timing.last_words):
                await self.services.records.drain()
                await self.services.statuses.drain()
        except TimeoutError:
            self._log("ending before everything was reported; the next start goes on with it")


async def run_agent(config: NodeConfig, *, log: Callable[[str], None] = log_line) -> None:
    """Join the cluster and be a node of it until cancelled. Raises: CinderError when there is no way to join."""
    identity = Identity(config, log=log)
    client = await identity.client()
    async with AsyncKube(identity.endpoint, on_error=Complaints(log)) as kube:
        agent = Agent(config, kube, log=log)
        server = KubeletServer(agent, log=log)
        await agent.run(_serve(identity, client, kube, agent, server))


async def _serve(identity: Identity, client: Certificate, kube: AsyncKube, agent: Agent, server: KubeletServer) -> None:
    """The kubelet API, as soon as there is a certificate for it; both certificates renewed in time."""

    def renewed(name: str) -> None:
        if name == "client":
            kube.reload()
        else:
            server.reload()

    async with asyncio.TaskGroup() as group:
        early = group.create_task(identity.renew_for_ever(kube, client, None, renewed))
        await agent.registration.registered.wait()
        serving = await identity.serving(kube)
        early.cancel()
        group.create_task(server.serve(serving.path))
        group.create_task(identity.renew_for_ever(kube, client, serving, renewed))


async def _nothing() -> Runtime:
    raise RuntimeError("this node has no runtime")
