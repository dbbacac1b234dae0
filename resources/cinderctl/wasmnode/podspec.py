"""A pod as the API gives it, with the questions the agent asks of it. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from cinderctl.kube.resources import format_time, parse_quantity, parse_time

__all__ = [
    "ISOLATION_ANNOTATION",
    "ContainerShape",
    "Pod",
    "PodShape",
    "RestartPolicy",
    "memory_limit",
    "seconds_of",
    "time_text",
]

ISOLATION_ANNOTATION = "cinder.crit.sh/isolation"
RestartPolicy = Literal["Always", "OnFailure", "Never"]


@dataclass(frozen=True, slots=True)
class ContainerShape:
    """What the lifecycle needs to know of a container. A sidecar is an init container that restarts always."""

    name: str
    init: bool = False
    sidecar: bool = False


@dataclass(frozen=True, slots=True)
class PodShape:
    """Containers in spec order. `once`: a pod of nobody's under `Always`, which runs to its end one time."""

    init: tuple[ContainerShape, ...]
    main: tuple[ContainerShape, ...]
    policy: RestartPolicy = "Always"
    once: bool = False

    def __iter__(self) -> Iterator[ContainerShape]:
        return iter((*self.init, *self.main))


class Pod:
    """One version of a pod. `raw` is the API object; its managedFields are dropped, they are half of its size."""

    __slots__ = ("raw",)

    def __init__(self, raw: dict[str, Any]) -> None:
        raw["metadata"].pop("managedFields", None)
        self.raw = raw

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def metadata(self) -> Mapping[str, Any]:
        meta: Mapping[str, Any] = self.raw["metadata"]
        return meta

    @property
    def uid(self) -> str:
        return str(self.metadata.get("uid", ""))

    @property
    def namespace(self) -> str:
        return str(self.metadata.get("namespace", "default"))

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def generation(self) -> int:
        return int(self.metadata.get("generation") or 0)

    @property
    def labels(self) -> Mapping[str, str]:
        return self.metadata.get("labels") or {}

    @property
    def annotations(self) -> Mapping[str, str]:
        return self.metadata.get("annotations") or {}

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.raw.get("spec") or {}

    @property
    def status(self) -> Mapping[str, Any]:
        return self.raw.get("status") or {}

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def created(self) -> str:
        return str(self.metadata.get("creationTimestamp") or "")

    @property
    def service_account(self) -> str:
        return str(self.spec.get("serviceAccountName") or "default")

    @property
    def containers(self) -> list[dict[str, Any]]:
        return list(self.spec.get("containers") or ())

    @property
    def init_containers(self) -> list[dict[str, Any]]:
        return list(self.spec.get("initContainers") or ())

    @property
    def all_containers(self) -> list[dict[str, Any]]:
        return self.init_containers + self.containers

    def container(self, name: str) -> dict[str, Any] | None:
        return next((c for c in self.all_containers if c["name"] == name), None)

    @property
    def deleting(self) -> bool:
        return bool(self.metadata.get("deletionTimestamp"))

    @property
    def grace(self) -> float:
        """Seconds a deletion leaves to the containers. Never below one, so that a stop is asked before it is forced."""
        given = self.metadata.get("deletionGracePeriodSeconds")
        if given is None:
            given = self.spec.get("terminationGracePeriodSeconds")
        return max(1.0, float(30 if given is None else given))

    @property
    def controller(self) -> Mapping[str, Any] | None:
        """The owner reference of the controller that would make this pod anew."""
        owners: Iterable[Mapping[str, Any]] = self.metadata.get("ownerReferences") or ()
        return next((owner for owner in owners if owner.get("controller")), None)

    @property
    def of_daemon_set(self) -> bool:
        owner = self.controller
        return owner is not None and owner.get("kind") == "DaemonSet"

    @property
    def terminal(self) -> bool:
        return self.status.get("phase") in ("Succeeded", "Failed")

    @property
    def isolated(self) -> bool:
        return self.annotations.get(ISOLATION_ANNOTATION) == "isolated"

    def shape(self, *, restart_bare: bool) -> PodShape:
        policy: RestartPolicy = self.spec.get("restartPolicy") or "Always"
        init = tuple(
            ContainerShape(c["name"], init=True, sidecar=c.get("restartPolicy") == "Always")
            for c in self.init_containers
        )
        main = tuple(ContainerShape(c["name"]) for c in self.containers)
        once = policy == "Always" and self.controller is None and not restart_bare
        return PodShape(init, main, policy, once)

    @property
    def qos_class(self) -> str:
        """Guaranteed, Burstable or BestEffort by cpu and memory of all containers (kubernetes.io: Pod QoS classes)."""
        guaranteed = True
        any_set = False
        for container in self.all_containers:
            resources = container.get("resources") or {}
            requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
            for name in ("cpu", "memory"):
                request, limit = _amount(requests, name), _amount(limits, name)
                any_set = any_set or bool(request or limit)
                guaranteed = guaranteed and bool(limit) and (request in (None, limit))
        if not any_set:
            return "BestEffort"
        return "Guaranteed" if guaranteed else "Burstable"


def memory_limit(container: Mapping[str, Any]) -> int:
    """Bytes of a container's memory limit, 0 for none."""
    amount = _amount((container.get("resources") or {}).get("limits") or {}, "memory")
    return math.ceil(amount) if amount else 0


def _amount(quantities: Mapping[str, Any], name: str) -> Decimal | None:
    """The quantity, None for none. The API server has checked it already."""
    text = quantities.get(name)
    return None if text is None else parse_quantity(text)


def time_text(moment: float | None) -> str | None:
    """Unix seconds as a metav1.Time."""
    return None if moment is None else format_time(datetime.fromtimestamp(moment, UTC))


def seconds_of(text: str | None) -> float | None:
    """A metav1.Time as Unix seconds; None for none or for what is no time."""
    if not text:
        return None
    try:
        return parse_time(text).timestamp()
    except ValueError:
        return None
