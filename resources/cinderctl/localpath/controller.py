"""The provisioner: claims become volumes on the node the scheduler chose, released volumes go with their data.

Everything here may be cut off at any instant and done again: the volume's name comes from the claim's uid, the
directory from both, a directory that is there is used, one that is gone is removed. Nothing outside `directory` is
ever touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.files import ensure_dir, remove_tree, storage_errors
from cinderctl.kube.aio import AsyncKube
from cinderctl.kube.endpoint import Endpoint
from cinderctl.kube.errors import AlreadyExistsError, ConflictError, KubeError, NotFoundError
from cinderctl.kube.resources import format_time, path_of
from cinderctl.localpath.provisioner import PROVISIONER
from cinderctl.localpath.volumes import (
    SELECTED_NODE,
    directory_of,
    is_released,
    persistent_volume,
    refusal,
    selected_node,
    volume_name,
    wants_volume,
)

__all__ = ["provision_forever"]

_log = logging.getLogger(__name__)

_RETRY_FIRST, _RETRY_MOST = 0.5, 60.0  # seconds between attempts at one object
_CLAIMS = path_of("v1", "PersistentVolumeClaim")
_VOLUMES = path_of("v1", "PersistentVolume")

Object = Mapping[str, Any]


async def provision_forever(endpoint: Endpoint, directory: Path) -> None:
    """Until cancelled. Survives an absent API server, renewed certificates, and being killed. Raises StorageError."""
    ensure_dir(directory)
    said: list[str] = [""]

    def survive(problem: Exception) -> None:
        if str(problem) != said[0]:
            said[0] = str(problem)
            _log.warning("%s", problem)
        with contextlib.suppress(KubeError):  # half-written credentials: the next error comes soon enough
            kube.reload()

    async with AsyncKube(endpoint, on_error=survive) as kube:
        controller = _Controller(kube, directory)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(controller.follow(_CLAIMS, wants_volume, controller.provision))
            tasks.create_task(controller.follow(_VOLUMES, is_released, controller.reclaim))
            tasks.create_task(controller.work())


@dataclass(slots=True)
class _Job:
    obj: Object
    act: Callable[[Object], Awaitable[None]]
    due: float
    failures: int = 0


class _Controller:
    def __init__(self, kube: AsyncKube, directory: Path) -> None:
        self._kube = kube
        self._directory = directory
        self._jobs: dict[str, _Job] = {}  # by uid: only what there is to do
        self._woken = asyncio.Event()

    async def follow(
        self, path: str, needs: Callable[[Object], bool], act: Callable[[Object], Awaitable[None]]
    ) -> None:
        """Keep the jobs of one collection: an object is a job from when it needs something until it does not."""
        async with contextlib.aclosing(self._kube.watch(path)) as events:
            async for event in events:
                if event.type in {"SYNCED", "BOOKMARK"}:
                    continue
                uid = event.object["metadata"].get("uid", "")
                if event.type != "DELETED" and needs(event.object):
                    self._jobs[uid] = _Job(event.object, act, time.monotonic())
                    self._woken.set()
                else:
                    self._jobs.pop(uid, None)

    async def work(self) -> None:
        """Do one job after the other; what fails comes again, later each time."""
        while True:
            self._woken.clear()
            uid, job = min(self._jobs.items(), key=lambda entry: entry[1].due, default=("", None))
            wait = job.due - time.monotonic() if job is not None else None
            if job is None or (wait is not None and wait > 0):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._woken.wait()
                continue
            try:
                await job.act(job.obj)
            except CinderError as problem:
                job.failures += 1
                job.due = time.monotonic() + min(_RETRY_FIRST * 2 ** (job.failures - 1), _RETRY_MOST)
                _log.warning("%s: %s", job.obj["metadata"]["name"], _words(problem))
            else:
                if self._jobs.get(uid) is job:  # else it changed meanwhile and is a new job
                    del self._jobs[uid]

    async def provision(self, claim: Object) -> None:
        """Make the volume of a claim. Raises CinderError to be called again."""
        class_name = claim["spec"].get("storageClassName") or ""
        try:
            storage_class = await self._kube.get(path_of("storage.k8s.io/v1", "StorageClass", name=class_name))
            if storage_class.get("provisioner") != PROVISIONER:
                return
            why = refusal(claim, storage_class)
            if why:
                await self._tell(claim, "Warning", "ProvisioningFailed", why)
                return
            node_name = selected_node(claim)
            if not node_name:
                return  # no pod yet; the scheduler's choice comes as a change of the claim
            node = await self._kube.get_or_none(path_of("v1", "Node", name=node_name))
            if node is None:
                await self._choose_again(claim, node_name)
                return
            await asyncio.to_thread(_make_directory, directory_of(claim, self._directory))
            await self._create_volume(claim, persistent_volume(claim, storage_class, node, self._directory))
        except CinderError as problem:
            await self._tell(claim, "Warning", "ProvisioningFailed", _words(problem))
            raise
        await self._tell(
            claim, "Normal", "ProvisioningSucceeded", f"Successfully provisioned volume {volume_name(claim)}"
        )

    async def reclaim(self, volume: Object) -> None:
        """Remove the data of a released volume, then the volume. Raises CinderError to be called again."""
        metadata = volume["metadata"]
        path = Path(str((volume["spec"].get("hostPath") or {}).get("path") or "/"))
        if path.parent != self._directory or not path.name.startswith("pvc-"):
            await self._tell(
                volume, "Warning", "VolumeFailedDelete", f"{path} is not a volume below {self._directory}; not removed"
            )
            return
        try:
            await asyncio.to_thread(remove_tree, path, below=self._directory)
            await self._kube.delete(f"{_VOLUMES}/{metadata['name']}", preconditions_uid=metadata["uid"])
        except NotFoundError:
            return
        except CinderError as problem:
            await self._tell(volume, "Warning", "VolumeFailedDelete", _words(problem))
            raise
        _log.info("removed volume %s with its data", metadata["name"])

    async def _create_volume(self, claim: Object, volume: Object) -> None:
        name = volume["metadata"]["name"]
        try:
            await self._kube.create(_VOLUMES, volume)
        except AlreadyExistsError:
            there = await self._kube.get(f"{_VOLUMES}/{name}")
            if (there["spec"].get("claimRef") or {}).get("uid") != claim["metadata"]["uid"]:
                raise
        _log.info("made volume %s for %s/%s", name, claim["metadata"]["namespace"], claim["metadata"]["name"])

    async def _choose_again(self, claim: Object, node_name: str) -> None:
        """The chosen node is gone: without the annotation the scheduler chooses another."""
        metadata = claim["metadata"]
        path = path_of("v1", "PersistentVolumeClaim", metadata["namespace"], metadata["name"])
        change = {"resourceVersion": metadata["resourceVersion"], "annotations": {SELECTED_NODE: None}}
        with contextlib.suppress(NotFoundError, ConflictError):  # gone, or changed: then it comes as a new job
            await self._kube.patch(path, {"metadata": change})
        await self._tell(
            claim, "Warning", "ProvisioningFailed", f"node {node_name} is gone; waiting for another choice"
        )

    async def _tell(self, obj: Object, type_: str, reason: str, message: str) -> None:
        """An event on the object. Events are talk: one that cannot be written is logged and forgotten."""
        metadata = obj["metadata"]
        namespace = metadata.get("namespace") or "default"
        key = hashlib.sha256(f"{metadata.get('uid')} {reason} {message}".encode()).hexdigest()[:16]
        name = f"{metadata['name']}.{key}"
        now = format_time(datetime.now(UTC))
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": obj.get("kind") or ("PersistentVolumeClaim" if "namespace" in metadata else "PersistentVolume"),
                "namespace": metadata.get("namespace", ""),
                "name": metadata["name"],
                "uid": metadata.get("uid", ""),
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": type_,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": PROVISIONER},
            "reportingComponent": PROVISIONER,
            "reportingInstance": "cinderctl",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        collection = path_of("v1", "Event", namespace)
        try:
            try:
                await self._kube.create(collection, event)
            except AlreadyExistsError:
                count = int((await self._kube.get(f"{collection}/{name}")).get("count") or 1)
                await self._kube.patch(f"{collection}/{name}", {"lastTimestamp": now, "count": count + 1})
        except KubeError as problem:
            _log.info("event %s on %s not written: %s", reason, metadata["name"], problem)


def _make_directory(path: Path) -> None:
    """Ours alone: pods run as this user. What stands there already is the same claim's, from an attempt cut off."""
    ensure_dir(path.parent)
    with storage_errors("make the volume", path):
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700)
        if path.is_symlink() or not path.is_dir():
            raise CinderError(f"{path} is in the way: not a directory")


def _words(problem: CinderError) -> str:
    first = problem.diagnostics[0]
    return f"{first.summary}: {first.detail}" if first.detail else first.summary
