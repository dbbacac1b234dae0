"""From a container in a pod's spec to a run: image, environment, volumes, then the runtime."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.files import StorageError, ensure_dir
from cinderctl.kube.errors import KubeError
from cinderctl.wasmnode.env import ContainerConfigError, PodFacts, arguments, environment
from cinderctl.wasmnode.images import Ensured, ImageError
from cinderctl.wasmnode.mounts import mounts_of
from cinderctl.wasmnode.podspec import Pod, memory_limit
from cinderctl.wasmnode.records import run_id
from cinderctl.wasmnode.services import Services
from cinderctl.wasmnode.volumes import Volume, VolumeError
from cinderctl.wasmrun.client import RuntimeGoneError, RuntimeRefusedError
from cinderctl.wasmrun.protocol import RunSpec, RunState

__all__ = ["NotStarted", "Started", "start_container", "why_not"]

_LOGS_KEPT = 2  # attempts of a container whose logs stay: the current one and the one `logs --previous` shows


@dataclass(frozen=True, slots=True)
class Started:
    run: RunState
    image: Ensured


@dataclass(frozen=True, slots=True)
class NotStarted:
    """`reason` and `message` are the container's waiting state; `pull`: the image's back-off applies."""

    reason: str
    message: str
    event: str
    event_text: str
    pull: bool = False


async def start_container(
    services: Services,
    pod: Pod,
    container: Mapping[str, Any],
    attempt: int,
    *,
    facts: PodFacts,
    volumes: asyncio.Future[dict[str, Volume]],
    commit: Callable[[], None],
) -> Started:
    """Raises what `why_not` explains. `commit` is called before the runtime is asked; from then on the run may exist,
    whatever is raised.
    """
    name = str(container["name"])
    ensured, env, made = await asyncio.gather(
        _image(services, pod, container),
        environment(container, pod, facts, services.objects),
        asyncio.shield(volumes),
    )
    directory = services.pod_dir(pod.uid)
    log = services.log_path(pod.uid, name, attempt)

    def prepare() -> RunSpec:
        ensure_dir(log.parent)
        for old in range(max(0, attempt - _LOGS_KEPT - 2), attempt - _LOGS_KEPT + 1):
            for path in log.parent.glob(f"{old}.log*"):
                path.unlink(missing_ok=True)
        return RunSpec(
            id=run_id(pod.uid, name, attempt),
            module=str(ensured.path),
            digest=ensured.image.digest,
            argv=arguments(container, env),
            env=tuple(env.items()),
            mounts=mounts_of(container, made, env, directory),
            log=str(log),
            memory_limit=memory_limit(container),
            workload_class="isolated" if pod.isolated else "shared",
            group=pod.uid,
        )

    spec = await asyncio.to_thread(prepare)
    commit()
    if ensured.seconds is not None:
        await services.runtime.prepare(ensured.path, ensured.image.digest)
    services.events.pod(pod, "Normal", "Created", f"Container created: {name}", container=name)
    return Started(await services.runtime.run(spec), ensured)


async def _image(services: Services, pod: Pod, container: Mapping[str, Any]) -> Ensured:
    name, reference = str(container["name"]), str(container.get("image") or "")
    policy = str(container.get("imagePullPolicy") or "IfNotPresent")
    secrets = await asyncio.gather(
        *(
            services.objects.secret(pod.namespace, str(ref["name"]))
            for ref in pod.spec.get("imagePullSecrets") or ()
            if ref.get("name")
        )
    )

    def pulling() -> None:
        services.events.pod(pod, "Normal", "Pulling", f'Pulling image "{reference}"', container=name)

    # A pull secret that is not there is passed over, as the kubelet does: the image may be public.
    ensured = await services.images.ensure(reference, policy, [s for s in secrets if s is not None], pulling)
    text = f'Container image "{reference}" already present on machine'
    if ensured.seconds is not None:
        text = (
            f'Successfully pulled image "{reference}" in {ensured.seconds * 1000:.0f}ms. '
            f"Image size: {ensured.image.size} bytes."
        )
    services.events.pod(pod, "Normal", "Pulled", text, container=name)
    return ensured


def why_not(error: CinderError, container: Mapping[str, Any]) -> NotStarted:
    """What a failed start means to a user of kubectl."""
    text = _words(error)
    match error:
        case ImageError():
            event = f'Failed to pull image "{container.get("image")}": {text}'
            return NotStarted(error.reason, text, "Failed", event, pull=error.reason == "ErrImagePull")
        case VolumeError():
            return NotStarted("ContainerCreating", text, "FailedMount", text)
        case ContainerConfigError():
            return NotStarted("CreateContainerConfigError", text, "Failed", f"Error: {text}")
        case KubeError():
            return NotStarted("CreateContainerConfigError", text, "Failed", f"Error: {text}")
        case RuntimeRefusedError():
            message = f"{error.reason}: {text}" if error.reason not in text else text
            return NotStarted("CreateContainerError", message, "Failed", f"Error: {message}")
        case RuntimeGoneError():
            return NotStarted("RuntimeUnavailable", text, "Failed", f"Error: {text}")
        case StorageError():
            return NotStarted("CreateContainerError", text, "Failed", f"Error: {text}")
        case _:
            return NotStarted("CreateContainerError", text, "Failed", f"Error: {text}")


def _words(error: CinderError) -> str:
    first = error.diagnostics[0]
    detailed = first.detail and isinstance(error, RuntimeRefusedError)
    return (f"{first.summary}: {first.detail}" if detailed else first.summary)[:2048]
