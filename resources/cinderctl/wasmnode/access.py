"""Who may call the kubelet API: known by client certificate or bearer token, allowed by the API server."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cinderctl.kube.aio import AsyncKube
from cinderctl.kube.errors import KubeError
from cinderctl.wasmnode.config import Timing

__all__ = ["Access", "Caller", "resource_of"]

_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Caller:
    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


class Access:
    """Answers are remembered for as long as the kubelet remembers them; errors are not, and count as no."""

    def __init__(
        self, kube: AsyncKube, node_name: str, timing: Timing, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kube = kube
        self._node = node_name
        self._timing = timing
        self._clock = clock
        self._known: OrderedDict[Any, tuple[float, Any]] = OrderedDict()

    async def by_token(self, token: str) -> Caller | None:
        """None for a token the API server does not know."""
        key = ("token", hashlib.sha256(token.encode()).hexdigest())
        known = self._recall(key)
        if known is not None:
            found: Caller | None = known[0]
            return found
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        try:
            answer = await self._kube.create("/apis/authentication.k8s.io/v1/tokenreviews", body)
        except KubeError:
            return None
        status = answer.get("status") or {}
        caller = _caller(status.get("user") or {}) if status.get("authenticated") else None
        # Short in either case: a token may be revoked.
        self._remember(key, caller, min(self._timing.access_denied, 120.0))
        return caller

    async def allowed(self, caller: Caller, verb: str, subresource: str) -> tuple[bool, str]:
        """Whether the caller may do `verb` on `nodes/<subresource>` of this node, and why not."""
        key = ("access", caller, verb, subresource)
        known = self._recall(key)
        if known is not None:
            found: tuple[bool, str] = known[0]
            return found
        spec: dict[str, Any] = {
            "user": caller.user,
            "groups": list(caller.groups),
            "resourceAttributes": {
                "verb": verb,
                "version": "v1",
                "resource": "nodes",
                "subresource": subresource,
                "name": self._node,
            },
        }
        if caller.uid:
            spec["uid"] = caller.uid
        if caller.extra:
            spec["extra"] = {name: list(values) for name, values in caller.extra}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        try:
            answer = await self._kube.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)
        except KubeError as error:
            return False, f"the API server could not be asked: {error}"
        status = answer.get("status") or {}
        verdict = bool(status.get("allowed")), str(status.get("reason") or "")
        self._remember(key, verdict, self._timing.access_allowed if verdict[0] else self._timing.access_denied)
        return verdict

    def _recall(self, key: Any) -> tuple[Any] | None:
        known = self._known.get(key)
        if known is None or known[0] < self._clock():
            return None
        return (known[1],)

    def _remember(self, key: Any, value: Any, seconds: float) -> None:
        self._known[key] = (self._clock() + seconds, value)
        self._known.move_to_end(key)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)


def _caller(user: Mapping[str, Any]) -> Caller:
    extra = tuple(sorted((str(k), tuple(str(v) for v in values)) for k, values in (user.get("extra") or {}).items()))
    return Caller(str(user.get("username", "")), tuple(user.get("groups") or ()), str(user.get("uid") or ""), extra)


def resource_of(path: str) -> str:
    """The subresource of `nodes` a path of the kubelet API stands for (kubernetes.io: kubelet authorization)."""
    first = path.strip("/").split("/", 1)[0]
    return {"containerLogs": "log", "stats": "stats", "metrics": "metrics", "spec": "spec"}.get(first, "proxy")
