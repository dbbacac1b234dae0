"""ConfigMaps, Secrets and their like, read for pods: never older than the question, never asked twice at once.

A pod made right after its ConfigMap changed must see the change, so nothing is cached for long; a hundred pods made
together must not ask a hundred times, so whoever comes while a request is on its way shares the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from cinderctl.kube.aio import AsyncKube
from cinderctl.wasmnode.podspec import Pod

__all__ = ["Objects"]

_ROOT_CA = "kube-root-ca.crt"
_ROOT_CA_SECONDS = 60.0  # written once per namespace by the controller manager; every pod mounts it


class _Flight:
    """One request on its way and the one that whoever came meanwhile shares."""

    __slots__ = ("current", "following")

    def __init__(self) -> None:
        self.current: asyncio.Task[dict[str, Any] | None] | None = None
        self.following: asyncio.Task[dict[str, Any] | None] | None = None


class Objects:
    def __init__(self, kube: AsyncKube, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._clock = clock
        self._flights: dict[str, _Flight] = {}
        self._roots: dict[str, tuple[float, dict[str, Any]]] = {}

    async def config_map(self, namespace: str, name: str) -> dict[str, Any] | None:
        """None when there is none. Raises: KubeError."""
        path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
        if name != _ROOT_CA:
            return await self._get(path)
        known = self._roots.get(namespace)
        if known is not None and self._clock() - known[0] < _ROOT_CA_SECONDS:
            return known[1]
        found = await self._get(path)
        if found is not None:
            self._roots[namespace] = (self._clock(), found)
        return found

    async def secret(self, namespace: str, name: str) -> dict[str, Any] | None:
        return await self._get(f"/api/v1/namespaces/{namespace}/secrets/{name}")

    async def claim(self, namespace: str, name: str) -> dict[str, Any] | None:
        return await self._get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")

    async def volume(self, name: str) -> dict[str, Any] | None:
        return await self._get(f"/api/v1/persistentvolumes/{name}")

    async def token(self, pod: Pod, audience: str, seconds: int) -> dict[str, Any]:
        """A service-account token bound to the pod: the TokenRequest's status. Raises: KubeError."""
        spec: dict[str, Any] = {
            "expirationSeconds": seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid},
            "audiences": [audience] if audience else [],
        }
        path = f"/api/v1/namespaces/{pod.namespace}/serviceaccounts/{pod.service_account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self._kube.create(path, body)
        status: dict[str, Any] = answer["status"]
        return status

    async def _get(self, path: str) -> dict[str, Any] | None:
        flight = self._flights.setdefault(path, _Flight())
        if flight.current is None:
            flight.current = asyncio.create_task(self._fly(path, flight, None))
            return await asyncio.shield(flight.current)
        if flight.following is None:
            flight.following = asyncio.create_task(self._fly(path, flight, flight.current))
        return await asyncio.shield(flight.following)

    async def _fly(
        self, path: str, flight: _Flight, after: asyncio.Task[dict[str, Any] | None] | None
    ) -> dict[str, Any] | None:
        if after is not None:
            await asyncio.wait([after])
            flight.current, flight.following = flight.following, None
        try:
            return await self._kube.get_or_none(path)
        finally:
            if flight.following is None:
                self._flights.pop(path, None)
            flight.current = None
