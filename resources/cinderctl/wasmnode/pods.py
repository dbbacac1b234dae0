"""The pods of a node: a worker for each, made and fed by the watch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from cinderctl.core.diagnostics import CinderError
from cinderctl.wasmnode.addresses import Addresses
from cinderctl.wasmnode.admission import admit
from cinderctl.wasmnode.adoption import split_run_id
from cinderctl.wasmnode.podspec import Pod
from cinderctl.wasmnode.records import PodRecord
from cinderctl.wasmnode.services import Services
from cinderctl.wasmnode.worker import PodWorker
from cinderctl.wasmrun.protocol import RunState

__all__ = ["Pods"]


class Pods:
    """`workers` by uid. `labels` are the node's own, for admission."""

    def __init__(
        self, services: Services, records: Mapping[str, PodRecord], labels: Callable[[], Mapping[str, str]]
    ) -> None:
        self._services = services
        self._records = dict(records)
        self._labels = labels
        self._addresses = Addresses(
            services.config.pod_cidr, services.config.node_ip, {uid: r.ip for uid, r in records.items() if r.ip}
        )
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._strangers: dict[str, asyncio.Task[None]] = {}  # by run
        self.workers: dict[str, PodWorker] = {}
        self.synced = asyncio.Event()

    async def follow(self) -> None:
        """Watch the node's pods until cancelled; then the workers end, what they run goes on."""
        watch = self._services.kube.watch(
            "/api/v1/pods", field_selector=f"spec.nodeName={self._services.config.node_name}"
        )
        try:
            async with contextlib.aclosing(watch) as events:
                async for event in events:
                    if event.type in ("ADDED", "MODIFIED"):
                        self._changed(Pod(event.object))
                    elif event.type == "DELETED":
                        self._deleted(str(event.object["metadata"].get("uid", "")))
                    elif event.type == "SYNCED":
                        self._clear_away()
                        self.synced.set()
        finally:
            tasks = [*self._tasks.values(), *self._strangers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def run_changed(self, state: RunState) -> None:
        parts = split_run_id(state.id)
        worker = self.workers.get(parts[0]) if parts is not None else None
        if worker is not None:
            worker.run_changed(state)

    def runs_listed(self, runs: Mapping[str, RunState]) -> None:
        for worker in list(self.workers.values()):
            worker.runs_listed()
        if self.synced.is_set():
            self._stop_strangers(runs)

    def find(self, namespace: str, name: str) -> PodWorker | None:
        return next((w for w in self.workers.values() if w.pod.name == name and w.pod.namespace == namespace), None)

    def images_in_use(self) -> frozenset[str]:
        return frozenset(str(c.get("image", "")) for w in self.workers.values() for c in w.pod.all_containers)

    def _changed(self, pod: Pod) -> None:
        worker = self.workers.get(pod.uid)
        if worker is not None:
            worker.update(pod)
            return
        record = self._records.pop(pod.uid, None)
        active = sum(1 for w in self.workers.values() if w.phase not in ("Succeeded", "Failed"))
        refusal = admit(pod, self._services.config, self._labels(), active) if record is None else None
        ip = record.ip if record is not None and record.ip else ""
        ip = ip or self._addresses.of(
            pod.uid, host_network=bool(pod.spec.get("hostNetwork")), before=str(pod.status.get("podIP") or "")
        )
        worker = self.workers[pod.uid] = PodWorker(
            self._services, pod, ip, record=record, refusal=refusal, over=self._addresses.release
        )
        task = self._tasks[pod.uid] = asyncio.create_task(worker.run(), name=f"pod {pod}")
        task.add_done_callback(lambda done: self._ended(pod, done))

    def _deleted(self, uid: str) -> None:
        worker = self.workers.get(uid)
        if worker is not None:
            worker.removed()

    def _ended(self, pod: Pod, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        self.workers.pop(pod.uid, None)
        self._tasks.pop(pod.uid, None)
        self._addresses.release(pod.uid)
        if (error := task.exception()) is not None:
            # A worker has no business failing; the pod's next change, or the next list, begins it anew.
            self._services.log(f"pod {pod}: {error!r}")

    def _clear_away(self) -> None:
        """After a whole list: what we kept of pods that are gone. Their runs are stopped, their files removed."""
        for uid in list(self._records):
            del self._records[uid]
            self._addresses.release(uid)
            self._strangers[uid] = asyncio.create_task(self._remove(uid), name=f"remove {uid}")
        if self._services.runtime.ready.is_set():
            self._stop_strangers(self._services.runtime.runs)

    async def _remove(self, uid: str) -> None:
        """The directory of a pod that is gone. What a run of it still writes, the collector takes later."""
        try:
            await self._services.records.remove(uid)
        except CinderError as error:
            self._services.log(f"the directory of a former pod cannot be removed: {error}")
        finally:
            self._strangers.pop(uid, None)

    def _stop_strangers(self, runs: Mapping[str, RunState]) -> None:
        for run in list(runs):
            parts = split_run_id(run)
            if (parts is None or parts[0] not in self.workers) and run not in self._strangers:
                self._strangers[run] = asyncio.create_task(self._stop_stranger(run), name=f"stop {run}")

    async def _stop_stranger(self, run: str) -> None:
        runtime = self._services.runtime
        try:
            await runtime.stop(run, 1.0)
            while (state := runtime.runs.get(run)) is not None and not state.over:  # noqa: ASYNC110 - rare
                await asyncio.sleep(0.2)
            await runtime.forget(run)
        except CinderError as error:
            self._services.log(f"the left-over run {run} cannot be cleared away: {error}")
        finally:
            self._strangers.pop(run, None)
