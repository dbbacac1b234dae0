"""The status of a pod as the API shows it, made from what the agent knows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cinderctl.wasmnode.lifecycle import ContainerState, Ended, Phase
from cinderctl.wasmnode.podspec import Pod, PodShape, time_text
from cinderctl.wasmnode.records import PodRecord

__all__ = ["container_id", "pod_status"]

_OURS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady")


def container_id(run: str) -> str:
    return f"wasmtime://{run}" if run else ""


def pod_status(
    pod: Pod,
    shape: PodShape,
    record: PodRecord,
    phase: Phase,
    *,
    host_ip: str,
    now: float,
    sandbox_ready: bool,
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole status. `before` is the status last known, for the transition times of conditions.

    `sandbox_ready`: volumes and address are there, so containers could start. Conditions that are not the kubelet's
    (PodScheduled, readiness gates) are left to their owners: a strategic merge patch keeps them.
    """
    before = before if before is not None else pod.status
    over = phase in ("Succeeded", "Failed")
    if over and record.final is not None and _never_begun(record):
        # As the kubelet shows a pod it refused: a waiting container would hide the reason from `kubectl get`.
        return {
            "phase": phase,
            "startTime": time_text(record.started),
            "reason": record.final.reason,
            "message": record.final.message,
            "containerStatuses": [],
            "initContainerStatuses": [],
        }
    stays = over or pod.deleting
    main = [_container_status(c, record, over=stays) for c in pod.containers]
    init = [_container_status(c, record, over=stays, init=True) for c in pod.init_containers]
    status: dict[str, Any] = {
        "phase": phase,
        "startTime": time_text(record.started),
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "qosClass": pod.status.get("qosClass") or pod.qos_class,
        "containerStatuses": main,
        "conditions": _conditions(
            pod, shape, record, phase, main=main, now=now, sandbox_ready=sandbox_ready and not over, before=before
        ),
    }
    if pod.generation:
        status["observedGeneration"] = pod.generation
    if init:
        status["initContainerStatuses"] = init
    if record.ip:
        status["podIP"] = record.ip
        status["podIPs"] = [{"ip": record.ip}]
    if record.final is not None:
        status["reason"], status["message"] = record.final.reason, record.final.message
    return status


def _never_begun(record: PodRecord) -> bool:
    return all(state.phase == "waiting" for state in record.containers.values())


def _container_status(
    container: Mapping[str, Any], record: PodRecord, *, over: bool, init: bool = False
) -> dict[str, Any]:
    """`over`: no container of the pod starts again, so one that waited for it is shown as it ended."""
    state = record.containers.get(container["name"], ContainerState())
    running = state.phase == "running"
    stays = not init or container.get("restartPolicy") == "Always"
    due_again = state.phase == "ended" and bool(state.reason) and not over
    last = state.ended if due_again else state.previous
    return {
        "name": container["name"],
        "image": state.image or container.get("image", ""),
        "imageID": state.image_id,
        "containerID": container_id(state.run_id if state.phase != "waiting" else ""),
        "restartCount": state.attempt,
        "ready": running if stays else _completed(state),
        "started": running,
        "state": {"waiting": _waiting(state)} if due_again else _state(state),
        "lastState": {"terminated": _terminated(last)} if last is not None else {},
    }


def _completed(state: ContainerState) -> bool:
    return state.phase == "ended" and state.ended is not None and state.ended.exit_code == 0 and not state.ended.lost


def _state(state: ContainerState) -> dict[str, Any]:
    if state.phase == "running":
        return {"running": {"startedAt": time_text(state.started_at)}}
    if state.ended is not None and state.phase == "ended":
        return {"terminated": _terminated(state.ended)}
    return {"waiting": _waiting(state)}


def _waiting(state: ContainerState) -> dict[str, str]:
    return {"reason": state.reason or "ContainerCreating"} | ({"message": state.message} if state.message else {})


def _terminated(how: Ended) -> dict[str, Any]:
    value: dict[str, Any] = {
        "exitCode": how.exit_code,
        "reason": how.reason,
        "startedAt": time_text(how.started_at),
        "finishedAt": time_text(how.finished_at),
    }
    if how.message:
        value["message"] = how.message
    if how.run_id:
        value["containerID"] = container_id(how.run_id)
    return value


def _conditions(
    pod: Pod,
    shape: PodShape,
    record: PodRecord,
    phase: Phase,
    *,
    main: Sequence[Mapping[str, Any]],
    now: float,
    sandbox_ready: bool,
    before: Mapping[str, Any],
) -> list[dict[str, Any]]:
    unready = [c["name"] for c in main if not c["ready"]]
    incomplete = [
        c.name
        for c in shape.init
        if not _initialized(record.containers.get(c.name, ContainerState()), sidecar=c.sidecar)
    ]
    begun = any(record.containers.get(c.name, ContainerState()).phase != "waiting" for c in shape.main)
    verdicts: dict[str, tuple[bool, str, str]] = {"PodReadyToStartContainers": (sandbox_ready, "", "")}
    if phase == "Succeeded" or (phase == "Failed" and not main):
        done = "PodCompleted" if phase == "Succeeded" else "PodFailed"
        verdicts["Initialized"] = (True, done, "")
        verdicts["ContainersReady"] = verdicts["Ready"] = (False, done, "")
    else:
        verdicts["Initialized"] = (
            (True, "", "")
            if begun or not incomplete
            else (False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(incomplete)}]")
        )
        reason = "PodFailed" if phase == "Failed" else "ContainersNotReady"
        containers = (
            (True, "", "") if not unready else (False, reason, f"containers with unready status: [{' '.join(unready)}]")
        )
        verdicts["ContainersReady"] = containers
        verdicts["Ready"] = _gated(pod, containers)
    known = {c.get("type"): c for c in before.get("conditions") or ()}
    return [_condition(name, verdicts[name], known.get(name), pod.generation, now) for name in _OURS]


def _gated(pod: Pod, containers: tuple[bool, str, str]) -> tuple[bool, str, str]:
    """Readiness gates: conditions of others that must be True as well."""
    met = {c.get("type") for c in pod.status.get("conditions") or () if c.get("status") == "True"}
    gates = [gate["conditionType"] for gate in pod.spec.get("readinessGates") or ()]
    missing = [gate for gate in gates if gate not in met]
    if containers[0] and missing:
        return False, "ReadinessGatesNotReady", f"conditions that are not True: [{' '.join(missing)}]"
    return containers


def _initialized(state: ContainerState, *, sidecar: bool) -> bool:
    if sidecar:
        return state.phase == "running"
    return _completed(state)


def _condition(
    name: str, verdict: tuple[bool, str, str], known: Mapping[str, Any] | None, generation: int, now: float
) -> dict[str, Any]:
    met, reason, message = verdict
    status = "True" if met else "False"
    since = known.get("lastTransitionTime") if known is not None and known.get("status") == status else None
    condition: dict[str, Any] = {"type": name, "status": status, "lastTransitionTime": since or time_text(now)}
    # null takes away what the former verdict left: a strategic merge patch merges conditions field by field.
    condition["reason"] = reason or None
    condition["message"] = message or None
    if generation:
        condition["observedGeneration"] = generation
    return condition
