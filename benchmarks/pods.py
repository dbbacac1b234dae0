"""How long a pod takes to be seen running and done, by somebody who watches the API."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from world import Failed, World

from cinderctl.host.dirs import ClusterDir
from cinderctl.kube.aio import AsyncKube
from cinderctl.kube.endpoint import Endpoint
from cinderctl.resources.cluster_api import admin_endpoint, server_of

__all__ = ["Latencies", "measure"]

_PODS = "/api/v1/namespaces/default/pods"
_PATIENCE = 60.0  # seconds for one pod


@dataclass(frozen=True, slots=True)
class Latencies:
    """Milliseconds from before the create request to the watch's event, one number a pod."""

    running: list[float]
    succeeded: list[float]


@dataclass(slots=True)
class _Seen:
    """Times (perf_counter, seconds) at which a pod was created and its phases came by."""

    created: float
    phases: dict[str, float] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)


def measure(world: World, example: Path, image: str, count: int, rate: float) -> tuple[Latencies, Latencies]:
    """The example's pod with `image`: one after the other, then `rate` a second. A few that are not counted come first,
    so the module is in the node's cache and compiled."""
    directory = ClusterDir(world.directory)
    objects = list(YAML(typ="safe").load_all(example.read_text()))
    return asyncio.run(_measure(admin_endpoint(directory, server_of(directory)), objects, image, count, rate))


async def _measure(
    endpoint: Endpoint, objects: list[dict[str, Any]], image: str, count: int, rate: float
) -> tuple[Latencies, Latencies]:
    async with AsyncKube(endpoint) as kube:
        pod = next(item for item in objects if item["kind"] == "Pod")
        pod["spec"]["containers"][0] |= {"image": image, "imagePullPolicy": "IfNotPresent"}
        for item in objects:
            if item["kind"] == "ConfigMap":
                await kube.create("/api/v1/namespaces/default/configmaps", item)
        run = _Run(kube, pod)
        watching = asyncio.create_task(run.watch())
        try:
            await asyncio.wait_for(run.synced.wait(), _PATIENCE)
            await run.one_by_one("warm", 3)
            sequential = await run.one_by_one("one", count)
            await run.clear()
            at_rate = await run.at_rate("rate", count, rate)
            await run.clear()
        finally:
            watching.cancel()
        return sequential, at_rate


class _Run:
    def __init__(self, kube: AsyncKube, template: dict[str, Any]) -> None:
        self._kube = kube
        self._template = template
        self._pods: dict[str, _Seen] = {}
        self.synced = asyncio.Event()

    async def watch(self) -> None:
        async for event in self._kube.watch(_PODS):
            now = time.perf_counter()
            if event.type == "SYNCED":
                self.synced.set()
                continue
            seen = self._pods.get(event.object.get("metadata", {}).get("name", ""))
            phase = event.object.get("status", {}).get("phase")
            if seen is None or event.type == "DELETED" or phase is None:
                continue
            seen.phases.setdefault(phase, now)
            if phase in {"Succeeded", "Failed"}:
                seen.done.set()

    async def one_by_one(self, tag: str, count: int) -> Latencies:
        names = [f"{tag}-{number}" for number in range(count)]
        for name in names:
            await self._pod(name)
            # What the node does after the last word on a pod (records, events) belongs to that pod.
            await asyncio.sleep(0.05)
        return self._latencies(names)

    async def at_rate(self, tag: str, count: int, rate: float) -> Latencies:
        names = [f"{tag}-{number}" for number in range(count)]
        begun = time.perf_counter()

        async def later(number: int, name: str) -> None:
            await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
            await self._pod(name)

        await asyncio.gather(*(later(number, name) for number, name in enumerate(names)))
        return self._latencies(names)

    async def clear(self) -> None:
        """Delete all pods and wait until they are gone."""
        await self._kube.request("DELETE", _PODS, query={"gracePeriodSeconds": "0"})
        await _until(self._gone, "the pods to go")
        self._pods.clear()

    async def _gone(self) -> bool:
        return not await self._kube.list(_PODS)

    async def _pod(self, name: str) -> None:
        body = copy.deepcopy(self._template)
        body["metadata"] = {"name": name}
        seen = self._pods[name] = _Seen(time.perf_counter())
        await self._kube.create(_PODS, body)
        try:
            await asyncio.wait_for(seen.done.wait(), _PATIENCE)
        except TimeoutError as error:
            raise Failed(f"pod {name} is not done after {_PATIENCE:g} s; seen: {list(seen.phases)}") from error

    def _latencies(self, names: list[str]) -> Latencies:
        for name in names:
            if not {"Running", "Succeeded"} <= self._pods[name].phases.keys():
                raise Failed(f"pod {name} was never seen Running and Succeeded: {list(self._pods[name].phases)}")
        pods = [self._pods[name] for name in names]
        return Latencies(
            [(pod.phases["Running"] - pod.created) * 1e3 for pod in pods],
            [(pod.phases["Succeeded"] - pod.created) * 1e3 for pod in pods],
        )


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not await condition():
        if time.monotonic() > deadline:
            raise Failed(f"not in {_PATIENCE:g} s: {what}")
        await asyncio.sleep(0.1)
