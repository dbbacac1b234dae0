"""Kubernetes API access for agents and tasks: asyncio on aiohttp, JSON dictionaries, small in memory.

A watch is read by a task of its own into an unbounded queue of raw lines: a watch that is read too slowly is closed
by the API server without an error, however busy the reader of the events is. Lines are decoded when they are taken,
so a burst costs the bytes of the burst and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, Self

import aiohttp
import orjson
from yarl import URL

from cinderctl.kube.endpoint import Endpoint, ssl_context
from cinderctl.kube.errors import (
    GoneError,
    KubeError,
    NotFoundError,
    ThrottledError,
    UnreachableError,
    error_from_status,
)
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
from cinderctl.kube.watch import Event, Seen, is_error_line, resource_version

__all__ = ["AsyncKube", "Event"]

_Objects = list[dict[str, Any]]  # a name of its own: within the class, `list` is the method

_BACKOFF_FIRST, _BACKOFF_MOST = 0.1, 5.0  # seconds; the cap is how late an agent may notice a server that came back
_LASTED = 1.0  # seconds a stream must have lived to be renewed without a pause
_OPENING = 30.0  # seconds a watch may take to begin
_WATCH_SECONDS = (300, 600)  # the server ends a watch after this long; spread, so that watches do not all renew at once
_IDLE_SECONDS = 75  # below the API server's own 90, so that no request meets a connection being closed


class AsyncKube:
    """One connection pool to one API server. Use as an async context manager.

    `endpoint` may be a function: it is called on entering and on `reload`, which is how renewed certificates come in.
    `max_in_flight` bounds requests, not watches. `on_error` hears of what a watch survives.
    """

    def __init__(
        self,
        endpoint: Endpoint | Callable[[], Endpoint],
        *,
        max_in_flight: int = 32,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        self._source = endpoint
        self._endpoint = Endpoint("")
        self._tls: ssl.SSLContext | bool = True
        self._slots = asyncio.Semaphore(max_in_flight)
        self._on_error = on_error
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self.reload()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            headers={"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def reload(self) -> None:
        """Read the credentials again. New connections use them; open watches renew within 10 minutes.

        Raises KubeError when a credential cannot be read; the former ones then stay in use.
        """
        endpoint = self._source() if callable(self._source) else self._source
        tls = ssl_context(endpoint)
        self._endpoint, self._tls = endpoint, tls if tls is not None else True

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, Any] | None = None,
        content_type: str = "application/json",
        timeout: float = 30.0,  # noqa: ASYNC109 - the whole exchange, retries after 429 included
    ) -> Any:
        """The decoded answer: JSON as objects, else text. Raises KubeError.

        Waits and tries again when the server throttles (429), as it asks; never repeats a request otherwise.
        UnreachableError when `timeout` seconds pass.
        """
        what = f"{method} {path}"
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        return await self._exchange(
                            what, method, with_query(path, query), encode_body(body), content_type
                        )
                    except ThrottledError as throttled:
                        await asyncio.sleep(throttled.retry_after)
        except TimeoutError as problem:
            raise _unreachable(self._endpoint.server, what, problem) from problem

    async def _exchange(self, what: str, method: str, path: str, data: bytes | None, content_type: str) -> Any:
        try:
            async with (
                self._slots,
                self._open().request(
                    method, self._url(path), data=data, headers=self._headers(data, content_type), ssl=self._tls
                ) as response,
            ):
                text = await response.read()
                headers = response.headers
                return answer(
                    what, response.status, headers.get("Content-Type", ""), headers.get("Retry-After", ""), text
                )
        except (aiohttp.ClientError, ConnectionError) as problem:
            raise _unreachable(self._endpoint.server, what, problem) from problem

    async def get(self, path: str) -> dict[str, Any]:
        value: dict[str, Any] = await self.request("GET", path)
        return value

    async def get_or_none(self, path: str) -> dict[str, Any] | None:
        try:
            return await self.get(path)
        except NotFoundError:
            return None

    async def list(self, path: str, *, label_selector: str = "", field_selector: str = "") -> _Objects:
        """All objects of a collection, page by page."""
        items, _ = await self.list_at(path, label_selector, field_selector)
        return items

    async def list_at(self, path: str, label_selector: str = "", field_selector: str = "") -> tuple[_Objects, str]:
        """As `list`, with the resource version a watch can begin from."""
        items: _Objects = []
        proceed = ""
        while True:
            try:
                page = await self.request("GET", path, query=list_query(label_selector, field_selector, proceed))
            except GoneError:
                if not proceed:
                    raise
                items, proceed = [], ""  # the token outlived the server's history: begin again
                continue
            items += with_kinds(page)
            proceed = page["metadata"].get("continue") or ""
            if not proceed:
                return items, page["metadata"].get("resourceVersion") or ""

    async def create(self, path: str, obj: Any, *, field_manager: str = "") -> dict[str, Any]:
        """POST to a collection (or a subresource such as `.../pods/p/binding`)."""
        value: dict[str, Any] = await self.request("POST", path, body=obj, query={"fieldManager": field_manager})
        return value

    async def replace(self, path: str, obj: Any, *, field_manager: str = "") -> dict[str, Any]:
        """PUT: the object as a whole; with metadata.resourceVersion set, ConflictError when someone was faster."""
        value: dict[str, Any] = await self.request("PUT", path, body=obj, query={"fieldManager": field_manager})
        return value

    async def patch(
        self,
        path: str,
        body: Any,
        *,
        type: PatchType = "merge",  # noqa: A002 - the contract's word, and the API's
        field_manager: str = "",
        force: bool = False,
    ) -> dict[str, Any]:
        """`body` is bytes or JSON. For "apply" the API requires `field_manager`, and `force` takes fields over."""
        value: dict[str, Any] = await self.request(
            "PATCH", path, body=body, query=patch_query(type, field_manager, force), content_type=PATCH_TYPES[type]
        )
        return value

    async def delete(
        self, path: str, *, grace: int | None = None, propagation: str = "Background", preconditions_uid: str = ""
    ) -> dict[str, Any]:
        """Raises NotFoundError when it is gone already, ConflictError when the uid is another's."""
        value: dict[str, Any] = await self.request(
            "DELETE", path, body=delete_options(grace, propagation, preconditions_uid)
        )
        return value

    def watch(self, path: str, *, label_selector: str = "", field_selector: str = "") -> AsyncGenerator[Event]:
        """Every change of a collection from now on, beginning with what is there, for ever.

        Lists, then watches; resumes where a broken stream ended; lists again when the server no longer knows that
        place, and then yields DELETED for what vanished meanwhile. SYNCED follows each list. Raises nothing but
        CancelledError; errors go to `on_error`. Leave it early with `aclose` (`contextlib.aclosing`), which ends the
        reading task.
        """
        return _events(lambda: _Tap(self, path, label_selector, field_selector))

    async def stream(self, path: str, query: dict[str, Any]) -> AsyncGenerator[bytes]:
        """The lines of a watch request, as they arrive. Raises KubeError; ends when the server ends it."""
        what = f"GET {path}"
        try:
            async with asyncio.timeout(_OPENING) as opening:
                async with self._open().get(
                    self._url(with_query(path, query)), headers=self._headers(None, ""), ssl=self._tls
                ) as response:
                    if response.status != 200:
                        headers = response.headers
                        text = await response.read()
                        answer(
                            what, response.status, headers.get("Content-Type", ""), headers.get("Retry-After", ""), text
                        )
                        return
                    opening.reschedule(None)
                    _keep_alive(response)
                    rest: list[bytes] = []
                    async for chunk in response.content.iter_any():
                        *lines, last = chunk.split(b"\n")
                        if not lines:
                            rest.append(last)
                            continue
                        lines[0] = b"".join((*rest, lines[0]))
                        rest = [last]
                        for line in lines:
                            if line:
                                yield line
        except (aiohttp.ClientError, OSError) as problem:
            raise _unreachable(self._endpoint.server, what, problem) from problem

    def report(self, problem: Exception) -> None:
        """Tell `on_error` of something a watch survived."""
        if self._on_error is not None:
            self._on_error(problem)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("AsyncKube is used outside its `async with`")
        return self._session

    def _url(self, path: str) -> URL:
        return URL(self._endpoint.server.rstrip("/") + path, encoded=True)

    def _headers(self, data: bytes | None, content_type: str) -> dict[str, str]:
        headers = {"Content-Type": content_type} if data is not None else {}
        if self._endpoint.token:
            headers["Authorization"] = f"Bearer {self._endpoint.token}"
        return headers


class _Tap:
    """One collection's lists and stream, poured into a queue: a list begins anew, bytes are a line of the stream."""

    def __init__(self, kube: AsyncKube, path: str, label_selector: str, field_selector: str) -> None:
        self._kube = kube
        self._path = path
        self._labels = label_selector
        self._fields = field_selector
        self._version = ""  # where the next stream begins; "" when only a list can tell
        self.queue: asyncio.Queue[bytes | _Objects] = asyncio.Queue()

    def report(self, problem: Exception) -> None:
        self._kube.report(problem)

    async def run(self) -> None:
        """Until cancelled."""
        pause = _BACKOFF_FIRST
        while True:
            started = time.monotonic()
            try:
                if not self._version:
                    items, self._version = await self._kube.list_at(self._path, self._labels, self._fields)
                    self.queue.put_nowait(items)
                await self._pour()
            except GoneError:
                self._version = ""
            except KubeError as problem:
                # After an answered error the place in the history is in doubt; a list is cheap and always right.
                self._version = "" if problem.status else self._version
                self.report(problem)
            except Exception as problem:  # noqa: BLE001 - a watch outlives whatever the network or the server does
                self._version = ""
                self.report(problem)
            if time.monotonic() - started > _LASTED:
                pause = _BACKOFF_FIRST
            else:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, keeps no secret
                pause = min(pause * 2, _BACKOFF_MOST)

    async def _pour(self) -> None:
        last = b""
        query = {
            "watch": True,
            "allowWatchBookmarks": True,
            "resourceVersion": self._version,
            "timeoutSeconds": random.randint(*_WATCH_SECONDS),  # noqa: S311
            "labelSelector": self._labels,
            "fieldSelector": self._fields,
        }
        try:
            async with contextlib.aclosing(self._kube.stream(self._path, query)) as lines:
                async for line in lines:
                    if is_error_line(line):
                        status = orjson.loads(line)["object"]
                        raise error_from_status(f"watch {self._path}", int(status.get("code") or 500), status)
                    self.queue.put_nowait(line)
                    last = line
        finally:
            if last:
                self._version = resource_version(last)


async def _events(open_tap: Callable[[], _Tap]) -> AsyncGenerator[Event]:
    seen = Seen()
    while True:
        tap = open_tap()
        drain = asyncio.create_task(tap.run(), name="watch")
        try:
            while True:
                entry = await tap.queue.get()
                try:
                    events = list(seen.listed(entry)) if isinstance(entry, list) else seen.changed(entry)
                except (ValueError, LookupError, TypeError) as problem:
                    tap.report(
                        problem
                    )  # no event of the API machinery: nothing after it can be relied on, so begin anew
                    break
                for event in events:
                    yield event
        finally:
            drain.cancel()
            await asyncio.gather(drain, return_exceptions=True)  # a cancellation of ours, meanwhile, is not swallowed
        await asyncio.sleep(_LASTED)


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    """Have the kernel notice within half a minute that the peer of an idle stream is gone."""
    transport = response.connection.transport if response.connection is not None else None
    stream = transport.get_extra_info("socket") if transport is not None else None
    if stream is None:
        return
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _unreachable(server: str, what: str, problem: Exception) -> UnreachableError:
    if isinstance(problem, aiohttp.ClientConnectorCertificateError):
        return UnreachableError(f"the certificate of {server} is not trusted", detail=f"{what}: {problem}")
    if isinstance(problem, TimeoutError):
        return UnreachableError(f"the API server at {server} did not answer in time", detail=f"{what}: timed out")
    return UnreachableError(f"cannot reach the API server at {server}", detail=f"{what}: {problem}")
