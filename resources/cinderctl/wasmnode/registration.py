"""Keeps the node known to the cluster: its object, its status, its lease.

The Node is made when it is missing, whether at first or because somebody deleted it; labels of ours that drifted are
set again; the status is sent when it changed, else every five minutes; the lease every ten seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from cinderctl.core.diagnostics import CinderError, TransientError
from cinderctl.kube.aio import AsyncKube
from cinderctl.kube.errors import AlreadyExistsError, KubeError, NotFoundError
from cinderctl.kube.resources import format_micro_time
from cinderctl.wasmnode.config import NodeConfig, Timing
from cinderctl.wasmnode.host_facts import HostFacts, Pressure, pressure
from cinderctl.wasmnode.images import Image
from cinderctl.wasmnode.node_object import (
    allowed_label,
    new_node,
    node_annotations,
    node_labels,
    node_status,
    node_taints,
    same_status,
)

__all__ = ["Registration"]

_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class Registration:
    """`runtime` gives the runtime's info, None while it is away; `log` takes lines for the agent's log."""

    def __init__(
        self,
        config: NodeConfig,
        timing: Timing,
        kube: AsyncKube,
        facts: HostFacts,
        *,
        runtime: Callable[[], Mapping[str, Any] | None],
        images: Callable[[], list[Image]],
        log: Callable[[str], None],
        now: Callable[[], float] = time.time,
        look: Callable[[], Pressure] | None = None,
    ) -> None:
        self._config = config
        self._timing = timing
        self._kube = kube
        self._facts = facts
        self._runtime = runtime
        self._images = images
        self._log = log
        self._now = now
        self._look = look or (lambda: pressure(config.directory))
        self._path = f"/api/v1/nodes/{config.node_name}"
        self._sent: dict[str, Any] | None = None
        self._sent_at = 0.0
        self._warned = ""
        self._uid = ""
        self._wake = asyncio.Event()
        self.registered = asyncio.Event()
        self.labels: Mapping[str, str] = node_labels(config)
        refused = sorted(key for key in config.labels if not allowed_label(key) and key not in self.labels)
        if refused:
            log(f"labels a node may not give itself are left out: {', '.join(refused)}")

    def changed(self) -> None:
        """Look at once: the runtime came or went."""
        self._wake.set()

    async def keep(self) -> None:
        """Until cancelled."""
        await asyncio.gather(self._keep_node(), self._keep_lease())

    async def _keep_node(self) -> None:
        while True:
            pause = self._timing.node_check
            try:
                await self.check()
            except CinderError as error:
                self._complain(f"the node cannot be registered: {error}")
                pause = min(pause, self._timing.api_retry_first * 5)
            else:
                self._warned = ""
                self.registered.set()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def check(self) -> None:
        """One look: make, mend, report. Raises: KubeError."""
        node = await self._kube.get_or_none(self._path)
        if node is None:
            try:
                node = await self._kube.create("/api/v1/nodes", new_node(self._config))
            except AlreadyExistsError:
                node = await self._kube.get(self._path)
            else:
                self._log(f"node {self._config.node_name} registered")
            self._sent = None
        self._uid = str(node["metadata"].get("uid", ""))
        try:
            await self._mend(node)
        except TransientError:
            raise
        except KubeError as error:
            self._complain(f"the node's labels cannot be set: {error}")
        await self._report(node.get("status") or {})

    async def _mend(self, node: Mapping[str, Any]) -> None:
        """Labels and range of an existing node. Its taints only an administrator may change."""
        shown = node["metadata"].get("labels") or {}
        self.labels = {**shown, **node_labels(self._config)}
        wanted = {"labels": node_labels(self._config), "annotations": node_annotations(self._config)}
        wrong = {
            field: {k: v for k, v in values.items() if (node["metadata"].get(field) or {}).get(k) != v}
            for field, values in wanted.items()
        }
        if any(wrong.values()):
            await self._kube.patch(self._path, {"metadata": wrong}, type="merge")
        spec = node.get("spec") or {}
        there = {(t.get("key"), t.get("value"), t.get("effect")) for t in spec.get("taints") or ()}
        missing = [t for t in node_taints(self._config) if (t.get("key"), t.get("value"), t.get("effect")) not in there]
        if missing:
            names = ", ".join(f"{t['key']}={t.get('value', '')}:{t['effect']}" for t in missing)
            self._complain(f"the node lacks taints that only an administrator can put back: {names}")

    async def _report(self, shown: Mapping[str, Any]) -> None:
        now = self._now()
        status = node_status(
            self._config,
            self._facts,
            self._look(),
            images=self._images(),
            runtime=self._runtime(),
            before=shown,
            now=now,
        )
        due = now - self._sent_at >= self._timing.node_report
        if self._sent is not None and same_status(self._sent, status) and not due and _kept(shown, status):
            return
        await self._kube.patch(f"{self._path}/status", {"status": status}, type="strategic")
        self._sent, self._sent_at = status, now

    async def _keep_lease(self) -> None:
        await self.registered.wait()
        while True:
            pause = self._timing.lease_renewal
            try:
                await self.renew_lease()
            except CinderError as error:
                self._complain(f"the node's lease cannot be renewed: {error}")
                pause = min(pause, self._timing.api_retry_first * 5)
            await asyncio.sleep(pause)

    async def renew_lease(self) -> None:
        """Raises: KubeError."""
        name = self._config.node_name
        moment = format_micro_time(datetime.fromtimestamp(self._now(), UTC))
        spec = {"holderIdentity": name, "leaseDurationSeconds": int(self._timing.lease), "renewTime": moment}
        try:
            await self._kube.patch(f"{_LEASES}/{name}", {"spec": spec}, type="merge")
        except NotFoundError:
            owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": self._uid}
            metadata: dict[str, Any] = {"name": name, "namespace": "kube-node-lease"}
            if self._uid:
                metadata["ownerReferences"] = [owner]
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
            with contextlib.suppress(AlreadyExistsError):  # renewed with the next beat
                await self._kube.create(_LEASES, lease)

    def _complain(self, text: str) -> None:
        """Once, not every ten seconds."""
        if text != self._warned:
            self._warned = text
            self._log(text)


def _kept(shown: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Whether the API still shows what was reported: a controller marks conditions Unknown, hands edit capacities."""
    known = {c.get("type"): c.get("status") for c in shown.get("conditions") or ()}
    return all(known.get(c["type"]) == c["status"] for c in status["conditions"]) and all(
        shown.get(name) == status[name] for name in ("capacity", "daemonEndpoints")
    )
