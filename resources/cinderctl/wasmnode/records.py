"""What must outlast the agent: one small file per pod, so that nothing finished is ever run again.

A start needs no durable note (a run's id is derived from pod, container and attempt, and the runtime never runs an id
twice); an end does, before the runtime is told to forget it. Writes go through one queue, off the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.files import ensure_dir, read_json, remove_tree, write_json
from cinderctl.wasmnode.lifecycle import ContainerState, Ended, Phase

__all__ = ["Final", "PodRecord", "RecordStore", "run_id"]


@dataclass(frozen=True, slots=True)
class Final:
    """A verdict over the whole pod, whatever its containers did: refused, out of time, evicted."""

    phase: Phase
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class PodRecord:
    """`started` in Unix seconds; `ip` the pod's address; `final` when its end does not follow from its containers."""

    uid: str
    namespace: str
    name: str
    started: float
    ip: str = ""
    containers: Mapping[str, ContainerState] = field(default_factory=dict)
    final: Final | None = None

    def with_container(self, name: str, state: ContainerState) -> PodRecord:
        return replace(self, containers={**self.containers, name: state})


def run_id(uid: str, container: str, attempt: int) -> str:
    """The same start has the same id for ever. Neither a uid nor a container name holds a dot."""
    return f"{uid}.{container}.{attempt}"


def to_json(record: PodRecord) -> dict[str, Any]:
    return asdict(record)


def from_json(value: Mapping[str, Any]) -> PodRecord:
    """Raises: ValueError for what `to_json` did not write."""
    try:
        containers = {str(name): _state(raw) for name, raw in value["containers"].items()}
        final = Final(**value["final"]) if value.get("final") else None
        return PodRecord(
            str(value["uid"]),
            str(value["namespace"]),
            str(value["name"]),
            float(value["started"]),
            str(value.get("ip", "")),
            containers,
            final,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a pod record: {error}") from error


def _state(raw: Mapping[str, Any]) -> ContainerState:
    ends = {name: Ended(**raw[name]) if raw.get(name) else None for name in ("ended", "previous")}
    return ContainerState(**{**raw, **ends})


class RecordStore:
    """The records below `root` (`<root>/<uid>/record.json`) and their writer. `on_error` hears of a full disk."""

    def __init__(self, root: Path, on_error: Callable[[Exception], None]) -> None:
        self._root = ensure_dir(root)
        self._on_error = on_error
        self._dirty: dict[str, PodRecord] = {}
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._doomed: dict[str, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()

    def load(self) -> dict[str, PodRecord]:
        """Every readable record by uid. A damaged one counts as absent: what the runtime and the API know remains."""
        found: dict[str, PodRecord] = {}
        for path in self._root.glob("*/record.json"):
            try:
                record = from_json(read_json(path) or {})
            except (CinderError, ValueError) as error:
                self._on_error(error)
                continue
            found[record.uid] = record
        return found

    def save(self, record: PodRecord) -> None:
        """Write soon, not necessarily before a crash."""
        self._dirty[record.uid] = record
        self._wake.set()

    async def flush(self, record: PodRecord) -> None:
        """Returns when the record is durable; tries until the disk takes it."""
        self.save(record)
        done = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(record.uid, []).append(done)
        await done

    async def drain(self) -> None:
        """Returns when nothing is left to write."""
        await asyncio.gather(*(self.flush(record) for record in list(self._dirty.values())))

    async def remove(self, uid: str) -> None:
        """The pod's whole directory: record, volumes, logs. Returns when it is gone; raises what stands in the way."""
        done = asyncio.get_running_loop().create_future()
        self._doomed[uid] = done
        self._wake.set()
        await done

    def forget(self, uid: str) -> None:
        """No more writes for this pod."""
        self._dirty.pop(uid, None)
        for future in self._waiting.pop(uid, ()):
            _settle(future)

    async def run(self) -> None:
        """The writer; runs until cancelled."""
        pause = 0.2
        while True:
            await self._wake.wait()
            self._wake.clear()
            # Removals first, and by the same hand as writes: they make room, and nothing is written after them.
            doomed, self._doomed = self._doomed, {}
            failed = await asyncio.to_thread(self._remove, tuple(doomed)) if doomed else {}
            for uid, future in doomed.items():
                _settle(future, failed.get(uid))
            batch, self._dirty = self._dirty, {}
            waiting, self._waiting = self._waiting, {}
            try:
                await asyncio.to_thread(self._write, batch, frozenset(waiting))
                pause = 0.2
            except CinderError as error:
                self._on_error(error)
                self._dirty = batch | self._dirty
                for uid, futures in waiting.items():
                    self._waiting.setdefault(uid, []).extend(futures)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5)
                self._wake.set()
                continue
            for futures in waiting.values():
                for future in futures:
                    _settle(future)

    def _remove(self, uids: Iterable[str]) -> dict[str, CinderError]:
        """Blocking. What could not be removed, and why."""
        failed: dict[str, CinderError] = {}
        for uid in uids:
            try:
                remove_tree(self._root / uid, below=self._root)
            except CinderError as error:
                failed[uid] = error
        return failed

    def _write(self, batch: Mapping[str, PodRecord], durable: frozenset[str]) -> None:
        for uid, record in batch.items():
            directory = ensure_dir(self._root / uid)
            write_json(directory / "record.json", to_json(record), durable=uid in durable)


def _settle(future: asyncio.Future[None], error: CinderError | None = None) -> None:
    """Whoever waited may be gone."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(None)
