"""When the status of a pod is told, and which: nothing twice, nothing too early, `Running` never left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cinderctl.wasmnode.lifecycle import ContainerState, Phase
from cinderctl.wasmnode.podspec import Pod, PodShape
from cinderctl.wasmnode.records import PodRecord
from cinderctl.wasmnode.services import Services
from cinderctl.wasmnode.status import pod_status

__all__ = ["Reporter"]

_FINAL: tuple[Phase, ...] = ("Succeeded", "Failed")


class Reporter:
    """Makes one pod's statuses and hands them to the `StatusWriter`. `last` is the newest of them."""

    def __init__(self, services: Services, shape: PodShape, pod: Pod) -> None:
        self._services = services
        self._shape = shape
        self._born = services.now()
        self._made_from: tuple[PodRecord, Phase, bool, int] | None = None
        self._shown_running = pod.status.get("phase") in ("Running", *_FINAL)
        self.last: Mapping[str, Any] | None = None

    def publish(self, pod: Pod, record: PodRecord, phase: Phase, sandbox_ready: bool, now: float) -> float | None:
        """Report what is new. Returns when to ask again, if a report is held back for a moment."""
        if phase == "Pending" and self.last is None and not pod.deleting and record.final is None:
            # A start takes milliseconds: one report less is one round trip less on the way to Running.
            creating = all(s.phase == "waiting" and s.reason == "ContainerCreating" for s in record.containers.values())
            shown_at = self._born + self._services.timing.creating_after
            if creating and now < shown_at:
                return shown_at
        # Most looks find nothing new; records are values, so an unchanged one is the same object.
        mark = (record, phase, sandbox_ready, pod.generation)
        known = self._made_from
        gated = bool(pod.spec.get("readinessGates"))
        if not gated and known is not None and mark[0] is known[0] and mark[1:] == known[1:]:
            return None
        if phase in _FINAL and not self._shown_running and self._mains_started(record):
            running = replace(record, final=None, containers=_as_running(record.containers))
            self._submit(pod, running, "Running", sandbox_ready, now)
        self._submit(pod, record, phase, sandbox_ready, now)
        self._made_from = mark
        return None

    def _submit(self, pod: Pod, record: PodRecord, phase: Phase, sandbox_ready: bool, now: float) -> None:
        if phase not in _FINAL and record.final is not None and record.final.phase in _FINAL:
            record = replace(record, final=None)  # the verdict is told when nothing runs any more
        self.last = status = pod_status(
            pod,
            self._shape,
            record,
            phase,
            host_ip=self._services.config.node_ip,
            now=now,
            sandbox_ready=sandbox_ready,
            before=self.last,
        )
        self._shown_running = self._shown_running or phase == "Running"
        self._services.statuses.submit(pod, status)

    def _mains_started(self, record: PodRecord) -> bool:
        mains = (record.containers[c.name] for c in self._shape.main)
        return any(s.ended is not None and s.ended.started_at is not None for s in mains)


def _as_running(states: Mapping[str, ContainerState]) -> dict[str, ContainerState]:
    """The states a moment before the last ends."""
    return {
        name: replace(state, phase="running", reason="", started_at=state.ended.started_at, ended=None)
        if state.ended is not None and state.ended.started_at is not None
        else state
        for name, state in states.items()
    }
