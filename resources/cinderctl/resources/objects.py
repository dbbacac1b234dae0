"""Kubernetes objects as resources: seen, applied server-side, deleted; shared by the kinds that are made of them.

Every object carries the label `cinder.crit.sh/cluster` and the record as an annotation. What is compared is what the
spec says, in the shape the spec says it: fields the server adds or another field manager owns are not ours to see as
drift."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinderctl.core.address import Address
from cinderctl.core.record import LABEL_CLUSTER, RECORD_ANNOTATION, Record
from cinderctl.core.values import Secret, map_leaves
from cinderctl.engine.kinds import Existence, Observation, Step
from cinderctl.kube.errors import ConflictError, KubeError, NotFoundError
from cinderctl.kube.fields import changed_by
from cinderctl.kube.resources import parse_quantity

if TYPE_CHECKING:
    from cinderctl.kube.client import KubeClient

__all__ = ["FIELD_MANAGER", "apply_object", "delete_object", "observe_object", "project", "revealed"]

FIELD_MANAGER = "cinderctl"


# The server rewrites quantities (`0.5` as `500m`) wherever their maps stand.
_QUANTITIES = frozenset(
    {"capacity", "default", "defaultRequest", "hard", "limits", "max", "min", "overhead", "requests"}
)
# Maps of the user's own keys: there an empty value that is gone is a change.
_OWN_KEYS = frozenset({"annotations", "binaryData", "data", "labels", "matchLabels", "nodeSelector"})


def project(want: Any, live: Any, inside: str = "") -> Any:
    """`live` cut to the shape of `want`: keys only `live` has are left out, list items are matched by name or by
    place. Where the server keeps another form of what was said, it reads as it was said: null asks for nothing, a zero
    value may be left out, an equal quantity is written anew. `inside` is the key that both stand at."""
    if want is None:
        return None
    if isinstance(want, Mapping) and isinstance(live, Mapping):
        return {
            key: project(value, live[key], inside if inside in _QUANTITIES else key) if key in live else value
            for key, value in want.items()
            if key in live or (_says_nothing(value) and inside not in _OWN_KEYS)
        }
    if isinstance(want, (list, tuple)) and isinstance(live, (list, tuple)):
        by_name = {item["name"]: item for item in live if isinstance(item, Mapping) and "name" in item}
        if by_name and len(by_name) == len(live) and all(isinstance(i, Mapping) and "name" in i for i in want):
            kept = [project(item, by_name[item["name"]]) for item in want if item["name"] in by_name]
            named = {item["name"] for item in want}
            return kept + [item for item in live if item["name"] not in named]
        if len(want) == len(live):
            return [project(a, b) for a, b in zip(want, live, strict=True)]
        return list(live)
    if isinstance(want, Secret) and isinstance(live, str):
        return Secret(live)
    return want if inside in _QUANTITIES and _same_quantity(want, live) else live


def _says_nothing(value: Any) -> bool:
    return value is None or value is False or value in ("", 0, [], (), {})


def _same_quantity(want: Any, live: Any) -> bool:
    if not isinstance(want, (str, int, float)) or isinstance(want, bool) or not isinstance(live, str):
        return False
    try:
        return parse_quantity(want) == parse_quantity(live)
    except ValueError:
        return False


def revealed(value: Any) -> Any:
    """Plain JSON for the API server: secrets opened."""
    return map_leaves(value, lambda leaf: leaf.reveal() if isinstance(leaf, Secret) else leaf)


def observe_object(
    kube: KubeClient | None, address: Address, want: Mapping[str, Any], record: Record | None, cluster: str
) -> Observation:
    """Find one object. `record` is the host's copy of the record, used when the object's annotation is gone."""
    if kube is None:
        return Observation.absent(address)
    try:
        live = kube.get_or_none(_path(kube, want))
    except KubeError as error:
        return Observation.not_seen(address, error.diagnostics[0].located(address=address))
    if live is None:
        return Observation.absent(address)
    metadata = live.get("metadata", {})
    owner = metadata.get("labels", {}).get(LABEL_CLUSTER)
    if owner != cluster and record is None:
        whose = f"cluster {owner!r}" if owner else _managers(metadata)
        return Observation(address, Existence.PRESENT, foreign=f"{_title(want)} exists and belongs to {whose}")
    return Observation(
        address,
        Existence.PRESENT,
        {"object": project(want, live)},
        {"uid": metadata.get("uid", "")},
        _own_record(metadata) or record,
        changed_by={f"object.{path}": who for path, who in changed_by(live).items() if FIELD_MANAGER not in who},
    )


def apply_object(kube: KubeClient, want: Mapping[str, Any], step: Step, cluster: str) -> dict[str, Any]:
    """Server-side apply with our marks. Fields that others changed by hand are taken back (force), as the plan said."""
    body = revealed(want)
    metadata = body.setdefault("metadata", {})
    metadata.setdefault("labels", {})[LABEL_CLUSTER] = cluster
    metadata.setdefault("annotations", {})[RECORD_ANNOTATION] = step.record.to_json()
    live = kube.apply(body, field_manager=FIELD_MANAGER, force=True)
    return {"uid": live.get("metadata", {}).get("uid", "")}


def delete_object(kube: KubeClient | None, want: Mapping[str, Any], uid: str, step: Step, *, wait: bool = True) -> None:
    """Delete the object with this uid and wait until it is gone. Another object of the same name is left alone. `wait`
    is False where the control plane goes as well: nobody will see how far its finalizers came."""
    if kube is None:
        return
    path = _path(kube, want)
    try:
        kube.delete(path, preconditions_uid=uid)
    except (NotFoundError, ConflictError):
        return

    if not wait:
        return

    def gone() -> bool | None:
        live = kube.get_or_none(path)
        return True if live is None or (uid and live["metadata"].get("uid") != uid) else None

    step.wait_until(gone, f"{_title(want)} is gone")


def _path(kube: KubeClient, want: Mapping[str, Any]) -> str:
    metadata = want["metadata"]
    api_version, kind = str(want["apiVersion"]), str(want["kind"])
    namespace = str(metadata.get("namespace") or "default") if kube.namespaced(api_version, kind) else ""
    return kube.path(api_version, kind, namespace, str(metadata["name"]))


def _title(want: Mapping[str, Any]) -> str:
    metadata = want["metadata"]
    place = f"{metadata['namespace']}/" if metadata.get("namespace") else ""
    return f"{want['kind']} {place}{metadata['name']}"


def _managers(metadata: Mapping[str, Any]) -> str:
    entries: Sequence[Mapping[str, Any]] = metadata.get("managedFields") or ()
    names = sorted({str(entry.get("manager", "")) for entry in entries} - {""})
    return f"somebody else (field managers: {', '.join(names)})" if names else "somebody else"


def _own_record(metadata: Mapping[str, Any]) -> Record | None:
    text = metadata.get("annotations", {}).get(RECORD_ANNOTATION)
    if not text:
        return None
    try:
        return Record.from_json(text)
    except (ValueError, json.JSONDecodeError):
        return None
