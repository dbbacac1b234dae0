"""Reports statuses to the API: in order, coalesced, until they arrive.

Of several statuses waiting for one pod only the newest is sent, with one exception: a `Running` that was never sent
goes before the final phase that overtook it, so whoever watches sees a pod run before it succeeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from cinderctl.core.diagnostics import TransientError
from cinderctl.kube.aio import AsyncKube
from cinderctl.kube.errors import ConflictError, InvalidError, KubeError, NotFoundError
from cinderctl.wasmnode.config import Timing
from cinderctl.wasmnode.podspec import Pod

__all__ = ["StatusWriter", "covers"]

_FINAL = ("Succeeded", "Failed")


class _Line:
    """The statuses of one pod on their way; `sent` is the last the API took."""

    __slots__ = ("pod", "queue", "sent", "task", "waiting")

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.queue: list[dict[str, Any]] = []
        self.sent: dict[str, Any] | None = None
        self.task: asyncio.Task[None] | None = None
        self.waiting: list[asyncio.Future[None]] = []


class StatusWriter:
    """`on_problem` hears, in words, of a status the API refused for good."""

    def __init__(self, kube: AsyncKube, timing: Timing, on_problem: Callable[[str], None]) -> None:
        self._kube = kube
        self._timing = timing
        self._on_problem = on_problem
        self._lines: dict[str, _Line] = {}

    def submit(self, pod: Pod, status: dict[str, Any]) -> None:
        """Send `status` for this pod after what was submitted before. What the API knows already is not sent again."""
        line = self._lines.get(pod.uid)
        if line is None:
            line = self._lines[pod.uid] = _Line(pod)
            if covers(pod.status, status):
                line.sent = status
        line.pod = pod
        last = line.queue[-1] if line.queue else line.sent
        if last == status:
            return
        if line.queue and not _must_show(line.queue[-1], status):
            line.queue[-1] = status
        else:
            line.queue.append(status)
        if line.task is None:
            line.task = asyncio.create_task(self._send(line), name=f"status {pod}")

    async def settled(self, uid: str) -> None:
        """Returns when nothing is left to send for a pod."""
        line = self._lines.get(uid)
        if line is None or line.task is None:
            return
        done = asyncio.get_running_loop().create_future()
        line.waiting.append(done)
        await done

    async def drain(self) -> None:
        """Returns when nothing is left to send at all."""
        await asyncio.gather(*(self.settled(uid) for uid in list(self._lines)))

    def forget(self, uid: str) -> None:
        """The pod is gone; what was not sent is void."""
        line = self._lines.pop(uid, None)
        if line is None:
            return
        line.queue.clear()
        if line.task is not None:
            line.task.cancel()
        _settle(line)

    async def _send(self, line: _Line) -> None:
        pause = self._timing.api_retry_first
        try:
            while line.queue:
                status = line.queue[0]
                try:
                    await self._patch(line.pod, status)
                except NotFoundError:
                    line.queue.clear()  # deleted: the watch will say so
                except ConflictError:
                    if not await self._is_there(line.pod):
                        line.queue.clear()  # another pod of the same name
                    await asyncio.sleep(pause)
                except TransientError as error:
                    await asyncio.sleep(max(pause, error.retry_after))
                    pause = min(pause * 2, self._timing.api_retry_most)
                    continue
                except InvalidError as error:
                    self._on_problem(f"the API server refuses the status of pod {line.pod}: {error}")
                    _shift(line, status)
                except KubeError as error:
                    self._on_problem(f"the status of pod {line.pod} cannot be reported: {error}")
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, self._timing.api_retry_most)
                    continue
                else:
                    pause = self._timing.api_retry_first
                    line.sent = status
                    _shift(line, status)
        finally:
            line.task = None
            _settle(line)

    async def _patch(self, pod: Pod, status: dict[str, Any]) -> None:
        body = {"metadata": {"uid": pod.uid}, "status": status}
        await self._kube.patch(f"{pod.path}/status", body, type="strategic")

    async def _is_there(self, pod: Pod) -> bool:
        try:
            found = await self._kube.get(pod.path)
        except NotFoundError:
            return False
        except KubeError:
            return True  # nobody knows; the next patch will tell
        return bool(found["metadata"].get("uid") == pod.uid)


def covers(shown: Any, status: Any) -> bool:
    """Whether what the API shows says all that `status` says. Conditions are compared by type; empty is absent."""
    match status:
        case None:
            return shown is None
        case dict():
            return isinstance(shown or {}, dict) and all(covers((shown or {}).get(k), v) for k, v in status.items())
        case list():
            there = shown or []
            if status and isinstance(status[0], dict) and "type" in status[0]:
                by_type = {c.get("type"): c for c in there}
                return all(covers(by_type.get(c["type"]), c) for c in status)
            return len(there) == len(status) and all(covers(a, b) for a, b in zip(there, status, strict=True))
        case _:
            return bool(shown == status) or (not status and not shown)


def _must_show(waiting: dict[str, Any], after: dict[str, Any]) -> bool:
    return waiting["phase"] == "Running" and after["phase"] in _FINAL


def _shift(line: _Line, status: dict[str, Any]) -> None:
    """Take `status` off the queue, unless something newer replaced it while it was sent."""
    if line.queue and line.queue[0] is status:
        del line.queue[0]


def _settle(line: _Line) -> None:
    for future in line.waiting:
        if not future.done():
            future.set_result(None)
    line.waiting.clear()
