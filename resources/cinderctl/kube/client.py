"""Kubernetes API access for kinds: synchronous, thread-safe, JSON dictionaries both ways.

One transport, a urllib3 connection pool; two ways to credentials. `from_endpoint` takes them from files of ours and
imports nothing else. `from_kubeconfig` lets the `kubernetes` package read the user's kubeconfig (exec plugins, OIDC,
proxies), and uses the pool it builds. Nothing here waits or repeats: callers wait with a deadline of theirs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import urllib3

from cinderctl.kube.endpoint import Endpoint, ssl_context
from cinderctl.kube.errors import GoneError, KubeError, NotFoundError, UnknownKindError, UnreachableError
from cinderctl.kube.protocol import (
    PATCH_TYPES,
    USER_AGENT,
    PatchType,
    answer,
    delete_options,
    encode_body,
    list_query,
    patch_query,
    with_kinds,
    with_query,
)
from cinderctl.kube.resources import BUILTIN, Resource, build_path

__all__ = ["KubeClient"]

_Objects = list[dict[str, Any]]  # a name of its own: within the class, `list` is the method
_CONNECTIONS = 16  # kept open; the executor's thread pool is smaller
_CONNECT_SECONDS = 10.0


class KubeClient:
    """One connection pool to one API server, shared by threads."""

    def __init__(
        self, server: str, pool: urllib3.PoolManager, authorization: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        """`authorization` gives the headers that say who we are, at each request: tokens may be renewed."""
        self.server = server.rstrip("/")
        self._pool = pool
        self._authorization = authorization
        self._discovered: dict[str, dict[str, Resource]] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_endpoint(cls, endpoint: Endpoint) -> KubeClient:
        """Raises KubeError when a credential file cannot be read. Connects at the first request."""
        pool = urllib3.PoolManager(maxsize=_CONNECTIONS, ssl_context=ssl_context(endpoint))
        headers = {"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else {}
        return cls(endpoint.server, pool, lambda: headers)

    @classmethod
    def from_kubeconfig(cls, path: str | None, context: str | None) -> KubeClient:
        """`path` may list several files as KUBECONFIG does; None is kubectl's default, also for `context`.

        Raises KubeError when the file, the context or its credentials cannot be used.
        """
        import kubernetes.client.rest  # noqa: PLC0415 - 0.25 s that only an external cluster has to pay
        import kubernetes.config  # noqa: PLC0415

        configuration = kubernetes.client.Configuration()
        where = f"context {context!r}" if context else "the current context"
        try:
            kubernetes.config.load_kube_config(  # type: ignore[no-untyped-call]
                path, context=context, client_configuration=configuration, persist_config=False
            )
            pool = kubernetes.client.rest.RESTClientObject(configuration).pool_manager
        except Exception as problem:  # the package lets YAML, base64 and TLS errors of the file through as they are
            raise KubeError(
                f"cannot use {where} of the kubeconfig{f' {path}' if path else ''}",
                detail=str(problem),
                hint="`kubectl config get-contexts` lists what is there",
            ) from problem

        def authorization() -> dict[str, str]:
            setting = configuration.auth_settings().get("BearerToken")
            return {"Authorization": setting["value"]} if setting and setting["value"] else {}

        return cls(configuration.host, pool, authorization)

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        timeout: float = 30.0,
    ) -> Any:
        """The decoded answer: JSON as objects, else text. Raises KubeError, UnreachableError when there is none."""
        what = f"{method} {path}"
        data = encode_body(body)
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json", **self._authorization()}
        if data is not None:
            headers["Content-Type"] = content_type
        try:
            response = self._pool.request(
                method,
                self.server + with_query(path, query),
                body=data,
                headers=headers,
                timeout=urllib3.Timeout(connect=min(timeout, _CONNECT_SECONDS), read=timeout),
                retries=False,
                redirect=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as problem:
            raise _unreachable(self.server, what, problem) from problem
        return answer(
            what,
            response.status,
            response.headers.get("Content-Type", ""),
            response.headers.get("Retry-After", ""),
            response.data,
        )

    def get(self, path: str) -> dict[str, Any]:
        value: dict[str, Any] = self.request("GET", path)
        return value

    def get_or_none(self, path: str) -> dict[str, Any] | None:
        """None when the object, its namespace or its kind is not there."""
        try:
            return self.get(path)
        except NotFoundError:
            return None

    def list(self, path: str, *, label_selector: str = "", field_selector: str = "") -> _Objects:
        """All objects of a collection, page by page, each with its apiVersion and kind."""
        items: _Objects = []
        proceed = ""
        while True:
            try:
                page = self.request("GET", path, query=list_query(label_selector, field_selector, proceed))
            except GoneError:
                if not proceed:
                    raise
                items, proceed = [], ""  # the token outlived the server's history: begin again
                continue
            items += with_kinds(page)
            proceed = page["metadata"].get("continue") or ""
            if not proceed:
                return items

    def path(self, api_version: str, kind: str, namespace: str = "", name: str = "") -> str:
        """The path of an object, or of its collection without `name`.

        Kinds of our own knowledge need no round trip; others are asked for once. Raises UnknownKindError.
        """
        plural, namespaced = self._resource(api_version, kind)
        return build_path(api_version, plural, namespaced, namespace, name)

    def path_for(self, obj: Mapping[str, Any]) -> str:
        """The path of an object as a manifest gives it; a namespaced one without namespace is in `default`."""
        metadata = obj["metadata"]
        api_version, kind = str(obj["apiVersion"]), str(obj["kind"])
        namespace = str(metadata.get("namespace") or "default") if self.namespaced(api_version, kind) else ""
        return self.path(api_version, kind, namespace, str(metadata["name"]))

    def namespaced(self, api_version: str, kind: str) -> bool:
        """Raises UnknownKindError."""
        return self._resource(api_version, kind)[1]

    def apply(self, obj: Mapping[str, Any], *, field_manager: str = "cinderctl", force: bool = False) -> dict[str, Any]:
        """Server-side apply; returns the object as stored.

        Raises ConflictError when another manager owns a field with another value (`.causes` name field and manager)
        and `force` is not given.
        """
        return self.patch(self.path_for(obj), obj, type="apply", field_manager=field_manager, force=force)

    def dry_run_apply(
        self, obj: Mapping[str, Any], *, field_manager: str = "cinderctl", force: bool = False
    ) -> dict[str, Any]:
        """What `apply` would store, admission and defaults included; nothing is stored."""
        return self.patch(self.path_for(obj), obj, type="apply", field_manager=field_manager, force=force, dry_run=True)

    def create(self, path: str, obj: Any, *, field_manager: str = "cinderctl") -> dict[str, Any]:
        """POST to a collection, or to a subresource such as `.../serviceaccounts/default/token`."""
        value: dict[str, Any] = self.request("POST", path, body=obj, query={"fieldManager": field_manager})
        return value

    def replace(self, path: str, obj: Any, *, field_manager: str = "cinderctl") -> dict[str, Any]:
        """PUT: the object as a whole; with metadata.resourceVersion set, ConflictError when someone was faster."""
        value: dict[str, Any] = self.request("PUT", path, body=obj, query={"fieldManager": field_manager})
        return value

    def patch(
        self,
        path: str,
        body: Any,
        *,
        type: PatchType = "merge",  # noqa: A002 - the contract's word, and the API's
        field_manager: str = "cinderctl",
        force: bool = False,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        value: dict[str, Any] = self.request(
            "PATCH",
            path,
            body=body,
            query=patch_query(type, field_manager, force, dry_run),
            content_type=PATCH_TYPES[type],
        )
        return value

    def delete(
        self, path: str, *, grace: int | None = None, propagation: str = "Background", preconditions_uid: str = ""
    ) -> dict[str, Any]:
        """Begins the deletion. Raises NotFoundError when it is gone, ConflictError when the uid is another's."""
        value: dict[str, Any] = self.request("DELETE", path, body=delete_options(grace, propagation, preconditions_uid))
        return value

    def server_version(self) -> str:
        """As `v1.36.3`."""
        return str(self.get("/version")["gitVersion"])

    def close(self) -> None:
        """Close idle connections; the client may be used again."""
        self._pool.clear()

    def _resource(self, api_version: str, kind: str) -> Resource:
        known = BUILTIN.get(api_version, {}).get(kind) or self._discovered.get(api_version, {}).get(kind)
        if known is not None:
            return known
        served = self._discover(api_version)
        if kind in served:
            return served[kind]
        import difflib  # noqa: PLC0415 - only a mistake pays for it

        near = difflib.get_close_matches(kind, {*served, *BUILTIN.get(api_version, {})}, n=1)
        raise UnknownKindError(
            f"the API server knows no kind {kind} in {api_version}"
            if served
            else f"the API server knows no {api_version}, which {kind} is said to be in",
            hint=f"did you mean {near[0]}?" if near else "is the CustomResourceDefinition applied first?",
        )

    def _discover(self, api_version: str) -> dict[str, Resource]:
        """Kinds that one group version serves. Only findings are remembered: what is missing may be applied later."""
        root = "/apis/" if "/" in api_version else "/api/"
        found = self.get_or_none(root + quote(api_version)) or {}
        served = {
            str(entry["kind"]): (str(entry["name"]), bool(entry["namespaced"]))
            for entry in found.get("resources") or ()
            if "/" not in entry["name"]
        }
        with self._lock:
            self._discovered[api_version] = served
        return served


def _unreachable(server: str, what: str, problem: Exception) -> UnreachableError:
    match problem:
        case urllib3.exceptions.SSLError():
            summary = f"no trusted TLS connection to the API server at {server}"
        case urllib3.exceptions.TimeoutError() if not isinstance(problem, urllib3.exceptions.NewConnectionError):
            summary = f"the API server at {server} did not answer in time"
        case _:
            summary = f"cannot reach the API server at {server}"
    return UnreachableError(summary, detail=f"{what}: {problem}")
