"""Pure words of the Kubernetes API: paths of built-in kinds, quantities, times. No I/O.

Paths follow the API conventions: `/api/v1/...` for the core group, `/apis/<group>/<version>/...` for the others,
`namespaces/<namespace>/` before the plural of a namespaced kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from urllib.parse import quote

__all__ = [
    "BUILTIN",
    "Resource",
    "build_path",
    "format_micro_time",
    "format_quantity",
    "format_time",
    "parse_quantity",
    "parse_time",
    "path_of",
]

Resource = tuple[str, bool]
"""Plural name of a kind and whether it is namespaced."""


def _kinds(namespaced: str = "", cluster: str = "", irregular: Mapping[str, str] | None = None) -> dict[str, Resource]:
    odd = irregular or {}
    kinds = {k: (odd.get(k, k.lower() + "s"), True) for k in namespaced.split()}
    kinds.update({k: (odd.get(k, k.lower() + "s"), False) for k in cluster.split()})
    return kinds


BUILTIN: Mapping[str, Mapping[str, Resource]] = {
    "v1": _kinds(
        "ConfigMap Endpoints Event LimitRange PersistentVolumeClaim Pod PodTemplate ReplicationController "
        "ResourceQuota Secret Service ServiceAccount",
        "Namespace Node PersistentVolume",
        {"Endpoints": "endpoints"},
    ),
    "admissionregistration.k8s.io/v1": _kinds(
        cluster="MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding "
        "ValidatingWebhookConfiguration",
        irregular={"ValidatingAdmissionPolicy": "validatingadmissionpolicies"},
    ),
    "apiextensions.k8s.io/v1": _kinds(cluster="CustomResourceDefinition"),
    "apiregistration.k8s.io/v1": _kinds(cluster="APIService"),
    "apps/v1": _kinds("ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet"),
    "authentication.k8s.io/v1": _kinds(cluster="SelfSubjectReview TokenReview"),
    "authorization.k8s.io/v1": _kinds(
        "LocalSubjectAccessReview", "SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview"
    ),
    "autoscaling/v1": _kinds("HorizontalPodAutoscaler"),
    "autoscaling/v2": _kinds("HorizontalPodAutoscaler"),
    "batch/v1": _kinds("CronJob Job"),
    "certificates.k8s.io/v1": _kinds(cluster="CertificateSigningRequest"),
    "coordination.k8s.io/v1": _kinds("Lease"),
    "discovery.k8s.io/v1": _kinds("EndpointSlice"),
    "events.k8s.io/v1": _kinds("Event"),
    "flowcontrol.apiserver.k8s.io/v1": _kinds(cluster="FlowSchema PriorityLevelConfiguration"),
    "networking.k8s.io/v1": _kinds(
        "Ingress NetworkPolicy",
        "IngressClass",
        {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies", "IngressClass": "ingressclasses"},
    ),
    "node.k8s.io/v1": _kinds(cluster="RuntimeClass", irregular={"RuntimeClass": "runtimeclasses"}),
    "policy/v1": _kinds("PodDisruptionBudget"),
    "rbac.authorization.k8s.io/v1": _kinds("Role RoleBinding", "ClusterRole ClusterRoleBinding"),
    "scheduling.k8s.io/v1": _kinds(cluster="PriorityClass", irregular={"PriorityClass": "priorityclasses"}),
    "storage.k8s.io/v1": _kinds(
        "CSIStorageCapacity",
        "CSIDriver CSINode StorageClass VolumeAttachment",
        {"CSIStorageCapacity": "csistoragecapacities", "StorageClass": "storageclasses"},
    ),
}
"""apiVersion -> kind -> resource, for what every supported API server serves."""


def build_path(api_version: str, plural: str, namespaced: bool, namespace: str = "", name: str = "") -> str:
    """The path of a collection (no name) or an object. A namespaced collection without namespace spans all namespaces.

    Raises ValueError for a namespaced object without its namespace.
    """
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    if namespaced and name and not namespace:
        raise ValueError(f"{plural} {name!r} needs a namespace")
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespaced and namespace else ""
    return f"{root}{scope}/{plural}" + (f"/{quote(name, safe=':')}" if name else "")


def path_of(api_version: str, kind: str, namespace: str = "", name: str = "") -> str:
    """The path of a built-in kind. Raises KeyError for others: ask the server's discovery (`KubeClient.path`)."""
    plural, namespaced = BUILTIN[api_version][kind]
    return build_path(api_version, plural, namespaced, namespace, name)


_SUFFIX: Mapping[str, Decimal] = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


def parse_quantity(text: str | int | float) -> Decimal:
    """The value of a Kubernetes quantity in its base unit (cores, bytes). Raises ValueError for what is none."""
    if not isinstance(text, str):
        return Decimal(str(text))
    number = text.strip()
    for suffix in (number[-2:], number[-1:]):
        if suffix in _SUFFIX and suffix:
            number, factor = number.removesuffix(suffix), _SUFFIX[suffix]
            break
    else:
        factor = Decimal(1)
    try:
        value = Decimal(number)
    except InvalidOperation as problem:
        raise ValueError(f"{text!r} is not a quantity such as `500m`, `2` or `1Gi`") from problem
    if not value.is_finite():
        raise ValueError(f"{text!r} is not a finite quantity")
    return value * factor


def format_quantity(value: Decimal | int, *, binary: bool = False) -> str:
    """Canonical text: the largest suffix that leaves a whole number (`binary` for memory), milli for fractions,
    rounded up.
    """
    amount = Decimal(value)
    if amount != amount.to_integral_value():
        return f"{int((amount * 1000).to_integral_value(ROUND_CEILING))}m"
    whole = int(amount)
    if whole:
        for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki") if binary else ("E", "P", "T", "G", "M", "k"):
            unit = int(_SUFFIX[suffix])
            if whole % unit == 0:
                return f"{whole // unit}{suffix}"
    return str(whole)


def parse_time(text: str) -> datetime:
    """An RFC 3339 time as metav1.Time and MicroTime write it; fractions beyond microseconds are cut. Raises
    ValueError.
    """
    head, dot, tail = text.strip().replace("Z", "+00:00").partition(".")
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        head += f".{tail[: min(digits, 6)]:0<6}{tail[digits:]}"
    moment = datetime.fromisoformat(head)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment


def format_time(moment: datetime) -> str:
    """metav1.Time: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(moment: datetime) -> str:
    """metav1.MicroTime: UTC, six digits (Lease.renewTime, Event.eventTime)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
