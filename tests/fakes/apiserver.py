"""A small Kubernetes API server in memory: objects, watches, patches, certificates, reviews. Plain HTTP.

Enough for what an agent asks: every path is a collection or an object in it, resource versions grow by one, watches
resume or answer 410, `/status` changes the status only, pods are deleted in two steps when somebody runs them. Faults
are switched on by attributes. No validation and no defaults: it is a fake, not a second Kubernetes.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

__all__ = ["FakeApiServer", "pod"]

_SINGULAR_SUBRESOURCES = {"status", "token", "binding", "approval"}


class FakeApiServer:
    """`url` while inside `serving`. Read `objects` and `requests`, or use the helpers, to see what happened."""

    def __init__(self, *, sign: Callable[[bytes, str], bytes] | None = None) -> None:
        """`sign(csr, signer name)` makes the certificate of an approved request; without it none is issued."""
        self.objects: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.url = ""
        self.approve = True  # certificate requests, at once
        self.tokens: dict[str, dict[str, Any]] = {}  # bearer token → user
        self.may: Callable[[dict[str, Any]], bool] = lambda _: True  # SubjectAccessReview.spec → allowed
        self.broken: Callable[[str, str], int | None] = lambda _m, _p: None  # (method, path) → status of a failure
        self.token_seconds = 3600
        self._sign = sign
        self._version = itertools.count(1)
        self._latest = 0
        self._history: list[tuple[int, str, str, dict[str, Any]]] = []  # version, type, path, object
        self._oldest = 0
        self._changed = asyncio.Condition()
        self._uids = itertools.count(1)
        self._watching: set[web.StreamResponse] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeApiServer]:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await self.drop_watches()
            await runner.cleanup()

    # -- for tests

    def add(self, collection: str, obj: dict[str, Any]) -> dict[str, Any]:
        """Put an object in, as another client would."""
        return self._store("ADDED", f"{collection}/{obj['metadata']['name']}", copy.deepcopy(obj), fresh=True)

    def change(self, path: str, change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        obj = copy.deepcopy(self.objects[path])
        change(obj)
        return self._store("MODIFIED", path, obj)

    def remove(self, path: str) -> None:
        """Gone at once."""
        obj = self.objects.pop(path)
        self._note("DELETED", path, obj)

    def add_pod(self, obj: dict[str, Any]) -> str:
        """A bound pod; returns its path."""
        collection = f"/api/v1/namespaces/{obj['metadata'].get('namespace', 'default')}/pods"
        self.add(collection, obj)
        return f"{collection}/{obj['metadata']['name']}"

    def ask_to_delete(self, path: str, grace: int = 30) -> None:
        """What `kubectl delete pod` does to a bound pod."""

        def mark(obj: dict[str, Any]) -> None:
            obj["metadata"]["deletionTimestamp"] = _now()
            obj["metadata"]["deletionGracePeriodSeconds"] = grace

        self.change(path, mark)

    async def until(self, met: Callable[[], Any], seconds: float = 5) -> Any:
        """Wait for a condition on the objects; returns what it gave."""
        async with asyncio.timeout(seconds):
            while True:
                try:
                    found = met()
                except (KeyError, IndexError):
                    found = None
                if found:
                    return found
                async with self._changed:
                    try:
                        async with asyncio.timeout(0.05):
                            await self._changed.wait()
                    except TimeoutError:
                        pass

    def events_of(self, name: str) -> list[dict[str, Any]]:
        """Kubernetes events about an object, in order."""
        return [o for p, o in self.objects.items() if "/events/" in p and o["involvedObject"]["name"] == name]

    def versions_of(self, path: str) -> list[dict[str, Any]]:
        """Every state an object went through."""
        return [obj for _, _, p, obj in self._history if p == path]

    async def drop_watches(self) -> None:
        """End every watch, as a restarted server would."""
        for response in list(self._watching):
            if response._req is not None and response._req.transport is not None:
                response._req.transport.close()
        await asyncio.sleep(0)

    def forget_history(self) -> None:
        """Watches that resume from before now are answered 410."""
        self._oldest = self._latest

    # -- the server

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        body = orjson.loads(data) if (data := await request.read()) else None
        self.requests.append((request.method, path, body))
        if (status := self.broken(request.method, path)) is not None:
            return _status(status, "InternalError", "broken on purpose")
        if path.endswith("/tokenreviews"):
            return _json(201, self._review_token(body))
        if path.endswith("/subjectaccessreviews"):
            return _json(201, {**body, "status": {"allowed": bool(self.may(body["spec"]))}})
        parent, _, last = path.rpartition("/")
        if last == "token" and request.method == "POST":
            return _json(201, self._issue_token(body))
        if request.method == "GET" and request.query.get("watch") == "true":
            return await self._watch(request, path)
        if request.method == "POST":
            return await self._create(path, body)
        target = parent if last in _SINGULAR_SUBRESOURCES else path
        if target not in self.objects:
            if request.method == "GET" and _is_collection(path):
                return _json(200, self._list(path, request.query.get("fieldSelector", "")))
            return _status(404, "NotFound", f"{path} not found")
        match request.method:
            case "GET":
                return _json(200, self.objects[target])
            case "PATCH":
                return self._patch(request, target, last, body)
            case "PUT":
                return _json(200, self._store("MODIFIED", target, body))
            case "DELETE":
                return self._delete(target, body or {})
        return _status(405, "MethodNotAllowed", request.method)

    async def _create(self, collection: str, body: dict[str, Any]) -> web.Response:
        path = f"{collection}/{body['metadata']['name']}"
        if path in self.objects:
            return _status(409, "AlreadyExists", f"{path} already exists")
        obj = self._store("ADDED", path, body, fresh=True)
        if collection.endswith("/certificatesigningrequests") and self.approve and self._sign is not None:
            self.approve_request(path)
        return _json(201, obj)

    def approve_request(self, path: str) -> None:
        """Approve a certificate request and issue what it asks for."""
        if self._sign is None:
            raise ValueError("this server signs nothing")
        spec = self.objects[path]["spec"]
        pem = self._sign(base64.b64decode(spec["request"]), spec["signerName"])
        status = {"conditions": [{"type": "Approved", "status": "True"}], "certificate": base64.b64encode(pem).decode()}
        self.change(path, lambda obj: obj.update(status=status))

    def _list(self, path: str, selector: str) -> dict[str, Any]:
        items = [obj for p, obj in self.objects.items() if _belongs(p, path) and _selected(obj, selector)]
        return {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": str(self._latest)}, "items": items}

    async def _watch(self, request: web.Request, path: str) -> web.StreamResponse:
        since = int(request.query.get("resourceVersion") or 0)
        if since < self._oldest:
            return _status(410, "Expired", "too old resource version")
        selector = request.query.get("fieldSelector", "")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._watching.add(response)
        try:
            while True:
                news = [entry for entry in self._history if entry[0] > since]
                for version, kind, where, obj in news:
                    since = version
                    if _belongs(where, path) and _selected(obj, selector):
                        await response.write(orjson.dumps({"type": kind, "object": obj}) + b"\n")
                async with self._changed:
                    if self._latest <= since:
                        await self._changed.wait()
        except (ConnectionResetError, ConnectionError):
            return response
        finally:
            self._watching.discard(response)

    def _patch(self, request: web.Request, target: str, last: str, body: dict[str, Any]) -> web.Response:
        current = copy.deepcopy(self.objects[target])
        uid = (body.get("metadata") or {}).get("uid")
        if uid and uid != current["metadata"]["uid"]:
            return _status(409, "Conflict", "the UID in the precondition does not match")
        strategic = "strategic" in request.headers.get("Content-Type", "")
        change = (
            {"status": body.get("status")} if last == "status" else {k: v for k, v in body.items() if k != "status"}
        )
        return _json(200, self._store("MODIFIED", target, _merged(current, change, strategic)))

    def _delete(self, path: str, options: dict[str, Any]) -> web.Response:
        obj = self.objects[path]
        uid = (options.get("preconditions") or {}).get("uid")
        if uid and uid != obj["metadata"]["uid"]:
            return _status(409, "Conflict", "the UID in the precondition does not match")
        if obj["metadata"].get("finalizers"):
            self.ask_to_delete(path, 0)
        elif "/pods/" in path and options.get("gracePeriodSeconds") != 0 and obj.get("spec", {}).get("nodeName"):
            self.ask_to_delete(path)
        else:
            self.remove(path)
        return _json(200, obj)

    def _review_token(self, body: dict[str, Any]) -> dict[str, Any]:
        user = self.tokens.get(body["spec"]["token"])
        return {**body, "status": {"authenticated": True, "user": user} if user else {"authenticated": False}}

    def _issue_token(self, body: dict[str, Any]) -> dict[str, Any]:
        expires = datetime.fromtimestamp(datetime.now(UTC).timestamp() + self.token_seconds, UTC)
        text = f"token-{len([r for r in self.requests if r[1].endswith('/token')])}"
        return {**body, "status": {"token": text, "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}}

    def _store(self, kind: str, path: str, obj: dict[str, Any], *, fresh: bool = False) -> dict[str, Any]:
        metadata = obj.setdefault("metadata", {})
        if fresh:
            metadata.setdefault("uid", f"00000000-0000-0000-0000-{next(self._uids):012d}")
            metadata.setdefault("creationTimestamp", _now())
        self.objects[path] = obj
        self._note(kind, path, obj)
        return obj

    def _note(self, kind: str, path: str, obj: dict[str, Any]) -> None:
        self._latest = next(self._version)
        obj["metadata"]["resourceVersion"] = str(self._latest)
        self._history.append((self._latest, kind, path, copy.deepcopy(obj)))
        wake = asyncio.get_running_loop().create_task(self._tell())
        wake.add_done_callback(lambda _: None)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def pod(name: str, *, node: str = "node-wasi", namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """A pod bound to a node, with one container `c` unless `containers` says otherwise."""
    metadata = {"name": name, "namespace": namespace}
    for field in ("labels", "annotations", "ownerReferences", "uid", "finalizers"):
        if field in spec:
            metadata[field] = spec.pop(field)
    status = spec.pop("status", {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]})
    spec.setdefault(
        "containers", [{"name": "c", "image": "registry.example/hello:v1", "imagePullPolicy": "IfNotPresent"}]
    )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": node, "restartPolicy": "Never"} | spec,
        "status": status,
    }


def _merged(current: Any, change: Any, strategic: bool) -> Any:
    """A merge patch (RFC 7386); `strategic` merges lists of conditions by type, addresses and podIPs by their keys."""
    if not isinstance(change, dict):
        return change
    result = dict(current) if isinstance(current, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif strategic and isinstance(value, list) and key in ("conditions", "addresses"):
            result[key] = _merged_list(result.get(key) or [], value)
        else:
            result[key] = _merged(result.get(key), value, strategic)
    return result


def _merged_list(current: list[dict[str, Any]], change: list[dict[str, Any]]) -> list[dict[str, Any]]:
    merged = {item["type"]: item for item in current}
    for item in change:
        merged[item["type"]] = _merged(merged.get(item["type"], {}), item, True)
    return list(merged.values())


def _is_collection(path: str) -> bool:
    """Whether a path ends with a plural: /api/v1/pods, /apis/g/v/ns/x/leases."""
    parts = path.strip("/").split("/")
    head = 2 if parts[0] == "api" else 3
    rest = parts[head:]
    return len(rest) in (1, 3)


def _belongs(path: str, collection: str) -> bool:
    """Whether an object lies in a collection; one without namespace spans all of them."""
    parent = path.rpartition("/")[0]
    if parent == collection:
        return True
    root, _, plural = collection.rpartition("/")
    return parent.startswith(f"{root}/namespaces/") and parent.endswith(f"/{plural}") and "/namespaces/" not in root


def _selected(obj: dict[str, Any], selector: str) -> bool:
    for term in filter(None, selector.split(",")):
        field, _, wanted = term.partition("=")
        value: Any = obj
        for part in field.split("."):
            value = (value or {}).get(part)
        if str(value or "") != wanted.lstrip("="):
            return False
    return True


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json(status: int, value: Any) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json")


def _status(code: int, reason: str, message: str) -> web.Response:
    return _json(
        code,
        {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message},
    )
