"""What to do next with a pod's containers: a pure function of their states, the restart policy and the clock.

The rules are the kubelet's: init containers run one after the other, sidecars among them stay; the others start
together; a container that ended is started again by the pod's policy, at once the first time, then after 10, 20, 40 …
300 seconds. One rule is Krustlet's: a pod of nobody's under `Always` runs once to its end (`PodShape.once`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cinderctl.wasmnode.config import Timing
from cinderctl.wasmnode.podspec import ContainerShape, PodShape

__all__ = ["ContainerState", "Decision", "Ended", "Phase", "decide", "ended", "phase_of", "restarts"]

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How one attempt ended. Times are Unix seconds. `lost`: by no fault of the guest, and nobody knows how far."""

    exit_code: int
    reason: str
    message: str = ""
    started_at: float | None = None
    finished_at: float = 0
    run_id: str = ""
    lost: bool = False


@dataclass(frozen=True, slots=True)
class ContainerState:
    """A container as the agent knows it. `attempt` counts from 0 and is the restart count.

    waiting: never started; running: `run_id` runs; ended: `ended` says how, and the next attempt, if one is due, begins
    after `not_before`. `reason` and `message` say why it does not run (waiting, or ended and due again); `backoff` is
    the pause the next end will cost; `previous` is how the attempt before this one ended.
    """

    phase: Literal["waiting", "running", "ended"] = "waiting"
    attempt: int = 0
    reason: str = "ContainerCreating"
    message: str = ""
    not_before: float = 0
    backoff: float = 0
    run_id: str = ""
    image: str = ""
    image_id: str = ""
    started_at: float | None = None
    ended: Ended | None = None
    previous: Ended | None = None

    @property
    def next_attempt(self) -> int:
        return self.attempt + 1 if self.phase == "ended" else self.attempt


@dataclass(frozen=True, slots=True)
class Decision:
    """`phase` is the pod's phase with these states; `done` that it is final and nothing runs any more.

    `start` and `stop` are due now; look again at `wake_at` (Unix seconds) if nothing happens before.
    """

    phase: Phase
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    wake_at: float | None = None
    done: bool = False


def restarts(shape: PodShape, container: ContainerShape, how: Ended) -> bool:
    """Whether an attempt that ended so is followed by another."""
    if container.sidecar:
        return True
    if container.init and how.exit_code == 0 and not how.lost:
        return False
    if shape.once:
        return how.lost  # it has not had its one run to the end
    if shape.policy == "Always":
        return True
    return shape.policy == "OnFailure" and (how.exit_code != 0 or how.lost)


def ended(state: ContainerState, how: Ended, timing: Timing, *, pod: str) -> ContainerState:
    """The state after an attempt, with the pause before the next one. `pod` names it in the back-off message."""
    lasted = how.finished_at - how.started_at if how.started_at is not None else 0.0
    pause = 0.0 if lasted >= timing.backoff_reset else state.backoff
    message = f"back-off {_duration(pause)} restarting failed container={pod}" if pause else ""
    return replace(
        state,
        phase="ended",
        reason="CrashLoopBackOff" if pause else "",
        message=message,
        not_before=how.finished_at + pause,
        backoff=min(pause * 2 or timing.backoff_first, timing.backoff_most),
        ended=how,
    )


def decide(shape: PodShape, states: Mapping[str, ContainerState], now: float, *, ending: bool = False) -> Decision:
    """`ending`: the pod is deleted or out of time, so everything stops and nothing starts."""
    running = tuple(c.name for c in reversed((*shape.init, *shape.main)) if states[c.name].phase == "running")
    if ending:
        return Decision(phase_of(shape, states, ending=True), stop=running, done=not running)
    failed_init = next((c for c in shape.init if _over(shape, c, states) and not _succeeded(states[c.name])), None)
    if failed_init is not None:
        return Decision("Failed", stop=running, done=not running)
    if all(_over(shape, c, states) for c in shape.main):
        phase: Phase = "Succeeded" if all(_succeeded(states[c.name]) for c in shape.main) else "Failed"
        return Decision(phase if not running else "Running", stop=running, done=not running)
    begun = any(states[c.name].phase != "waiting" for c in shape.main)
    due = _due(shape, states, begun)
    start = tuple(name for name in due if states[name].not_before <= now)
    later = [states[name].not_before for name in due if states[name].not_before > now]
    return Decision(phase_of(shape, states), start=start, wake_at=min(later, default=None))


def _due(shape: PodShape, states: Mapping[str, ContainerState], begun: bool) -> list[str]:
    """Containers that should run and do not, whether or not their pause is over."""
    due: list[str] = []
    for container in shape.init:
        state = states[container.name]
        if container.sidecar:
            if state.phase != "running":
                due.append(container.name)
                if not begun:
                    return due
        elif not begun and not (state.phase == "ended" and _succeeded(state)):
            return due if state.phase == "running" else [*due, container.name]
    for container in shape.main:
        state = states[container.name]
        if state.phase == "waiting" or (state.phase == "ended" and not _over(shape, container, states)):
            due.append(container.name)
    return due


def _over(shape: PodShape, container: ContainerShape, states: Mapping[str, ContainerState]) -> bool:
    """Ended for good."""
    how = states[container.name].ended
    return states[container.name].phase == "ended" and how is not None and not restarts(shape, container, how)


def _succeeded(state: ContainerState) -> bool:
    return state.ended is not None and state.ended.exit_code == 0 and not state.ended.lost


def phase_of(shape: PodShape, states: Mapping[str, ContainerState], *, ending: bool = False) -> Phase:
    """The pod's phase, as the kubelet derives it; while a pod ends, what stopped counts by its exit code."""
    begun = any(states[c.name].phase != "waiting" for c in shape.main)
    initialized = begun or all(
        (states[c.name].phase == "running") if c.sidecar else _succeeded(states[c.name]) for c in shape.init
    )
    mains = [states[c.name] for c in shape.main]
    if any(s.phase == "running" for s in mains):
        return "Running" if not any(s.phase == "waiting" for s in mains) else "Pending"
    if ending:
        everything = [states[c.name] for c in shape]
        if any(s.phase == "running" for s in everything):
            return "Running" if initialized else "Pending"
        return "Succeeded" if mains and all(_succeeded(s) for s in mains) else "Failed"
    if not initialized or any(s.phase == "waiting" for s in mains):
        return "Pending"
    return "Running"


def _duration(seconds: float) -> str:
    """As Go prints it: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
