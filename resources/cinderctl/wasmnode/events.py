"""Events for `kubectl describe` and `kubectl get events`: sent one after the other, after what matters more.

The same thing happening again to the same object raises the count of its first event. Events are talk: they are limited
in rate and number, and dropped rather than kept for ever when the API server does not take them.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from cinderctl.core.diagnostics import TransientError
from cinderctl.kube.aio import AsyncKube
from cinderctl.kube.errors import KubeError, NotFoundError
from cinderctl.kube.resources import format_time
from cinderctl.wasmnode.podspec import Pod

__all__ = ["COMPONENT", "EventType", "Events"]

COMPONENT = "kubelet"  # the name users and tools filter events by
EventType = Literal["Normal", "Warning"]
_KEPT = 2000  # remembered for counting
_QUEUED = 5000
_BURST, _RATE = 200, 50.0  # events, events a second


@dataclass(frozen=True, slots=True)
class _Key:
    uid: str
    field_path: str
    type: str
    reason: str
    message: str


@dataclass(slots=True)
class _Known:
    path: str
    count: int


class Events:
    """`pod` and `node` note an event and return at once; `run` sends."""

    def __init__(
        self,
        kube: AsyncKube,
        node_name: str,
        on_error: Callable[[Exception], None],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._kube = kube
        self._node = node_name
        self._on_error = on_error
        self._now = now
        self._queue: deque[tuple[_Key, dict[str, Any], str, float]] = deque(maxlen=_QUEUED)
        self._known: OrderedDict[_Key, _Known] = OrderedDict()
        self._wake = asyncio.Event()
        self._serial = 0
        self._tokens, self._refilled = float(_BURST), 0.0

    def pod(self, pod: Pod, type_: EventType, reason: str, message: str, *, container: str = "") -> None:
        """`container`: the one it is about, for `involvedObject.fieldPath`."""
        involved = {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
            "resourceVersion": str(pod.metadata.get("resourceVersion", "")),
        }
        if container:
            kind = "initContainers" if any(c["name"] == container for c in pod.init_containers) else "containers"
            involved["fieldPath"] = f"spec.{kind}{{{container}}}"
        self._note(involved, pod.namespace, type_, reason, message)

    def node(self, type_: EventType, reason: str, message: str) -> None:
        involved = {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": self._node}
        self._note(involved, "default", type_, reason, message)

    def _note(self, involved: Mapping[str, str], namespace: str, type_: EventType, reason: str, message: str) -> None:
        message = message if len(message) <= 1024 else message[:1021] + "..."
        key = _Key(involved["uid"], involved.get("fieldPath", ""), type_, reason, message)
        self._queue.append((key, dict(involved), namespace, self._now()))
        self._wake.set()

    async def run(self) -> None:
        """Sends until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._allowed()
                key, involved, namespace, moment = self._queue.popleft()
                try:
                    await self._send(key, involved, namespace, moment)
                except TransientError as error:
                    self._on_error(error)
                    if len(self._queue) < _QUEUED:
                        self._queue.appendleft((key, involved, namespace, moment))
                    await asyncio.sleep(max(1.0, error.retry_after))
                except KubeError as error:
                    self._on_error(error)  # the namespace is being deleted, or the event is refused: no other try helps

    async def _allowed(self) -> None:
        while True:
            now = asyncio.get_running_loop().time()
            self._tokens = min(_BURST, self._tokens + (now - self._refilled) * _RATE)
            self._refilled = now
            if self._tokens >= 1:
                self._tokens -= 1
                return
            await asyncio.sleep((1 - self._tokens) / _RATE)

    async def _send(self, key: _Key, involved: Mapping[str, str], namespace: str, moment: float) -> None:
        text = format_time(datetime.fromtimestamp(moment, UTC))
        known = self._known.get(key)
        if known is not None:
            try:
                await self._kube.patch(known.path, {"count": known.count + 1, "lastTimestamp": text}, type="merge")
            except NotFoundError:
                del self._known[key]  # events live for an hour; begin anew
            else:
                known.count += 1
                self._known.move_to_end(key)
                return
        self._serial += 1
        name = f"{involved['name']}.{int(moment * 1e6):x}{self._serial % 0xFFFF:04x}"
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": dict(involved),
            "reason": key.reason,
            "message": key.message,
            "type": key.type,
            "source": {"component": COMPONENT, "host": self._node},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._node,
            "firstTimestamp": text,
            "lastTimestamp": text,
            "count": 1,
        }
        collection = f"/api/v1/namespaces/{namespace}/events"
        await self._kube.create(collection, event)
        self._known[key] = _Known(f"{collection}/{name}", 1)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
