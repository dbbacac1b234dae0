"""After a restart of the agent: what each container of a pod is doing, from every witness. Pure.

Witnesses, the later ones winning where they know more: the status the API shows, the pod's record, the runtime's list
of runs. What should run and is not on the list is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cinderctl.wasmnode.lifecycle import ContainerState, Ended
from cinderctl.wasmnode.podspec import Pod, PodShape, seconds_of
from cinderctl.wasmnode.records import PodRecord, run_id
from cinderctl.wasmrun.protocol import RunState

__all__ = ["LOST_EXIT_CODE", "Adopted", "adopt", "end_of", "split_run_id"]

LOST_EXIT_CODE = 137
_LOST_REASON = "ContainerStatusUnknown"
_LOST_MESSAGE = "The container's process was gone when the node agent looked for it; nobody knows how far it came"


@dataclass(frozen=True, slots=True)
class Adopted:
    """`over`: containers whose state here is `running` and whose end is known already."""

    states: dict[str, ContainerState]
    over: dict[str, Ended]


def adopt(pod: Pod, shape: PodShape, record: PodRecord | None, runs: Mapping[str, RunState], now: float) -> Adopted:
    states: dict[str, ContainerState] = {}
    over: dict[str, Ended] = {}
    shown = {
        status["name"]: status
        for key in ("initContainerStatuses", "containerStatuses")
        for status in pod.status.get(key) or ()
    }
    for container in shape:
        name = container.name
        state = record.containers.get(name) if record is not None else None
        if state is None:
            state = _from_api(shown.get(name))
        run = _latest_run(pod.uid, name, state, runs)
        if run is not None:
            state = _running(state, run)
            if run.over:
                over[name] = end_of(run, state.started_at, now)
        elif state.phase == "running":
            over[name] = Ended(
                LOST_EXIT_CODE, _LOST_REASON, _LOST_MESSAGE, state.started_at, now, state.run_id, lost=True
            )
        states[name] = state
    return Adopted(states, over)


def end_of(run: RunState, started_at: float | None, now: float) -> Ended:
    """How a run that is over ended, as a container status shows it."""
    lost = run.state == "lost"
    code = run.exit_code if run.exit_code is not None else LOST_EXIT_CODE
    return Ended(
        exit_code=LOST_EXIT_CODE if lost else code,
        reason=run.reason or (_LOST_REASON if lost else "Completed" if code == 0 else "Error"),
        message=run.message,
        started_at=run.started_at or started_at,
        finished_at=run.finished_at or now,
        run_id=run.id,
        lost=lost,
    )


def split_run_id(run: str) -> tuple[str, str, int] | None:
    """(uid, container, attempt) of a run id of ours."""
    parts = run.split(".")
    if len(parts) != 3 or not parts[2].isdigit():
        return None
    return parts[0], parts[1], int(parts[2])


def _latest_run(uid: str, name: str, state: ContainerState, runs: Mapping[str, RunState]) -> RunState | None:
    """The newest run that is news: of this attempt while that has not ended, or of the next."""
    for attempt in (state.attempt + 1, state.attempt):
        run = runs.get(run_id(uid, name, attempt))
        if run is not None and (attempt > state.attempt or state.phase != "ended"):
            return run
    return None


def _running(state: ContainerState, run: RunState) -> ContainerState:
    parts = split_run_id(run.id)
    attempt = parts[2] if parts is not None else state.attempt
    if state.phase == "running" and attempt == state.attempt:
        return replace(state, run_id=run.id, started_at=state.started_at or run.started_at)
    return replace(
        state,
        phase="running",
        attempt=attempt,
        reason="",
        message="",
        run_id=run.id,
        started_at=run.started_at,
        previous=state.ended or state.previous,
        ended=None,
    )


def _from_api(status: Mapping[str, Any] | None) -> ContainerState:
    if status is None:
        return ContainerState()
    shown: Mapping[str, Any] = status.get("state") or {}
    last = (status.get("lastState") or {}).get("terminated")
    base = ContainerState(
        attempt=int(status.get("restartCount") or 0),
        image=str(status.get("image") or ""),
        image_id=str(status.get("imageID") or ""),
        run_id=str(status.get("containerID") or "").removeprefix("wasmtime://"),
        previous=_ended(last),
    )
    if shown.get("running"):
        return replace(base, phase="running", reason="", started_at=seconds_of(shown["running"].get("startedAt")))
    if shown.get("terminated"):
        return replace(base, phase="ended", reason="", ended=_ended(shown["terminated"]))
    if last is not None:  # waiting out a pause between two attempts
        return replace(base, phase="ended", reason="", ended=_ended(last), previous=None)
    return base


def _ended(shown: Mapping[str, Any] | None) -> Ended | None:
    if not shown:
        return None
    return Ended(
        exit_code=int(shown.get("exitCode") or 0),
        reason=str(shown.get("reason") or ""),
        message=str(shown.get("message") or ""),
        started_at=seconds_of(shown.get("startedAt")),
        finished_at=seconds_of(shown.get("finishedAt")) or 0.0,
        run_id=str(shown.get("containerID") or "").removeprefix("wasmtime://"),
    )
