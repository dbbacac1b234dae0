"""A small Kubernetes API server in a thread: objects, pages, watches with history, and faults on demand.

It keeps what it is given and checks nothing; what it does about resource versions, selectors, status answers and watch
streams follows the API conventions, so both our clients can talk to it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

__all__ = ["FakeApi", "Request", "status"]

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class _Place:
    group_version: str
    namespace: str
    plural: str
    name: str
    subresource: str

    def holds(self, other: _Place) -> bool:
        same = (self.group_version, self.plural) == (other.group_version, other.plural)
        return same and self.namespace in {"", other.namespace}


def _parse(path: str) -> _Place:
    parts = path.strip("/").split("/")
    version, rest = (parts[1], parts[2:]) if parts[0] == "api" else ("/".join(parts[1:3]), parts[3:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    rest += [""] * (3 - len(rest))
    return _Place(version, namespace, rest[0], rest[1], rest[2])


def status(code: int, reason: str, message: str, **details: Any) -> dict[str, Any]:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
    return body | {"message": message, "details": details}


class FakeApi:
    """Use `with FakeApi.running() as api`. Methods are for the test's thread."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.answers: list[tuple[int, Any, Mapping[str, str]]] = []
        self.chunk = 0  # bytes per write of a watch stream; 0: a line at once
        self._loop = asyncio.new_event_loop()
        self._objects: dict[_Place, dict[str, Any]] = {}
        self._history: list[tuple[int, str, _Place, dict[str, Any]]] = []
        self._version = 100
        self._oldest = 0
        self._streams: set[asyncio.Queue[Any]] = set()
        self._expire_pages = False

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[FakeApi]:
        api = cls()
        thread = threading.Thread(target=api._loop.run_forever)
        thread.start()
        runner = api._do(api._start)
        try:
            yield api
        finally:
            api.break_watches()
            api._do(runner.cleanup)
            api._loop.call_soon_threadsafe(api._loop.stop)
            thread.join()
            api._loop.close()

    async def _start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    def _do(self, work: Callable[[], Any]) -> Any:
        async def run() -> Any:
            result = work()
            return await result if asyncio.iscoroutine(result) else result

        future: Future[Any] = asyncio.run_coroutine_threadsafe(run(), self._loop)
        return future.result(10)

    # What a test does to the world

    def put(self, path: str, obj: Mapping[str, Any]) -> dict[str, Any]:
        return self._do(lambda: self._store(_parse(path), obj))

    def remove(self, path: str) -> None:
        self._do(lambda: self._drop(_parse(path)))

    def object(self, path: str) -> dict[str, Any] | None:
        return self._do(lambda: copy.deepcopy(self._objects.get(_parse(path))))

    def all(self, path: str) -> list[dict[str, Any]]:
        place = _parse(path)
        return self._do(lambda: [copy.deepcopy(o) for p, o in self._objects.items() if place.holds(p)])

    def break_watches(self) -> None:
        self._do(lambda: [stream.put_nowait(None) for stream in self._streams])

    def say_to_watches(self, event: Mapping[str, Any]) -> None:
        self._do(lambda: [stream.put_nowait((self._version, dict(event))) for stream in self._streams])

    def write_to_watches(self, data: bytes) -> None:
        self._do(lambda: [stream.put_nowait(data) for stream in self._streams])

    def forget_history(self) -> None:
        """As after compaction: no watch can resume from before now."""
        self._do(lambda: (setattr(self, "_oldest", self._version), self._history.clear()))

    def expire_pages(self) -> None:
        """The next continue token is too old."""
        self._expire_pages = True

    def answer_next(self, code: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        self.answers.append((code, body, headers or {}))

    def watching(self) -> int:
        return len(self._streams)

    # The server's side, in its own thread

    def _store(self, place: _Place, obj: Mapping[str, Any]) -> dict[str, Any]:
        self._version += 1
        new = copy.deepcopy(dict(obj))
        metadata = new.setdefault("metadata", {})
        metadata["name"] = place.name
        if place.namespace:
            metadata["namespace"] = place.namespace
        old = self._objects.get(place)
        metadata.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{self._version}")
        metadata["resourceVersion"] = str(self._version)
        self._objects[place] = new
        self._tell("MODIFIED" if old else "ADDED", place, new)
        return copy.deepcopy(new)

    def _drop(self, place: _Place) -> None:
        self._version += 1
        gone = self._objects.pop(place)
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._tell("DELETED", place, gone)

    def _tell(self, type_: str, place: _Place, obj: dict[str, Any]) -> None:
        entry = (self._version, type_, place, copy.deepcopy(obj))
        self._history.append(entry)
        for stream in self._streams:
            stream.put_nowait(entry)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        self.requests.append(Request(request.method, request.path, dict(request.query), dict(request.headers), body))
        if self.answers:
            code, what, headers = self.answers.pop(0)
            if isinstance(what, str):
                return web.Response(status=code, text=what, headers=headers)
            return web.json_response(what, status=code, headers=headers)
        if request.path == "/version":
            return web.json_response({"gitVersion": "v1.36.3"})
        place = _parse(request.path)
        if request.query.get("watch") == "true":
            return await self._watch(request, place)
        code, answer = self._answer(request, place, body)
        return web.json_response(answer, status=code)

    def _answer(self, request: web.Request, place: _Place, body: Any) -> tuple[int, Any]:
        query = request.query
        target = _Place(place.group_version, place.namespace, place.plural, place.name, "")
        if request.method == "POST":
            name = body["metadata"].get("name") or f"{body['metadata']['generateName']}{self._version}"
            target = _Place(place.group_version, place.namespace, place.plural, name, "")
            if target in self._objects:
                return 409, status(409, "AlreadyExists", f'{place.plural} "{name}" already exists')
            return 201, self._store(target, body)
        if request.method == "GET" and not place.name:
            return self._list(place, query)
        known = self._objects.get(target)
        apply = request.headers.get("Content-Type", "").startswith("application/apply-patch")
        if known is None and not apply:
            return 404, status(404, "NotFound", f'{place.plural} "{place.name}" not found')
        match request.method:
            case "GET":
                return 200, known
            case "PUT" | "PATCH":
                wanted = (body.get("metadata") or {}).get("resourceVersion")
                if known and wanted and wanted != known["metadata"]["resourceVersion"]:
                    return 409, status(409, "Conflict", "the object has been modified")
                merged = body if request.method == "PUT" else _merge(known or {}, body)
                return (200 if known else 201), merged if query.get("dryRun") else self._store(target, merged)
            case "DELETE":
                uid = ((body or {}).get("preconditions") or {}).get("uid")
                if uid and uid != known["metadata"]["uid"]:
                    return 409, status(409, "Conflict", "the UID in the precondition does not match")
                self._drop(target)
                return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}
        return 405, status(405, "MethodNotAllowed", "no")

    def _list(self, place: _Place, query: Mapping[str, str]) -> tuple[int, Any]:
        items = [o for p, o in self._objects.items() if place.holds(p) and _selected(o, query)]
        start, limit = int(query.get("continue") or 0), int(query.get("limit") or 0)
        if start and self._expire_pages:
            self._expire_pages = False
            return 410, status(410, "Expired", "The provided continue parameter is too old")
        page = items[start : start + limit] if limit else items
        more = str(start + limit) if limit and start + limit < len(items) else ""
        kind = page[0].get("kind", "Thing") if page else "Thing"
        bare = [{k: v for k, v in o.items() if k not in {"kind", "apiVersion"}} for o in page]
        metadata = {"resourceVersion": str(self._version), "continue": more}
        return 200, {"kind": f"{kind}List", "apiVersion": place.group_version, "metadata": metadata, "items": bare}

    async def _watch(self, request: web.Request, place: _Place) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self._oldest:
            gone = status(410, "Expired", f"too old resource version: {since}")
            return web.json_response({"type": "ERROR", "object": gone})
        stream: asyncio.Queue[Any] = asyncio.Queue()
        for entry in self._history:
            stream.put_nowait(entry)
        self._streams.add(stream)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            await response.prepare(request)
            while (entry := await stream.get()) is not None:
                if isinstance(entry, bytes):
                    await response.write(entry)
                    continue
                if len(entry) == 2:
                    event = entry[1]
                else:
                    version, type_, where, obj = entry
                    if version <= since or not place.holds(where) or not _selected(obj, request.query):
                        continue
                    event = {"type": type_, "object": obj}
                line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
                size = self.chunk or len(line)
                for at in range(0, len(line), size):
                    await response.write(line[at : at + size])
                    await asyncio.sleep(0)
        except ConnectionError:
            return response
        finally:
            self._streams.discard(stream)
        return response


def _merge(base: Any, patch: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    merged = {k: v for k, v in base.items() if not (k in patch and patch[k] is None)}
    return merged | {k: _merge(base.get(k, {}), v) for k, v in patch.items() if v is not None}


def _selected(obj: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    labels = obj["metadata"].get("labels") or {}
    wanted = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    for pair in filter(None, query.get("fieldSelector", "").split(",")):
        path, value = pair.split("=", 1)
        found: Any = obj
        for part in path.split("."):
            found = (found or {}).get(part)
        if (found or "") != value:
            return False
    return True
