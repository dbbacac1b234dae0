"""The kubelet API: what kubectl and the API server ask of a node, over TLS, from callers known and allowed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from cinderctl.wasmnode.access import Access, Caller, resource_of
from cinderctl.wasmnode.config import NodeConfig
from cinderctl.wasmnode.logs import LogOptions, log_files, moment_of, read_log
from cinderctl.wasmnode.stats import metrics_text, summary
from cinderctl.wasmnode.worker import PodWorker

if TYPE_CHECKING:
    from cinderctl.wasmnode.agent import Agent

__all__ = ["KubeletServer", "log_options"]

_INSTEAD = (
    "a WebAssembly pod has no processes, shells or network of its own to {what}; "
    "use `kubectl logs` for its output, `kubectl describe` for its state, and volumes to exchange files"
)
_NO_SUCH = {
    "exec": "exec into",
    "run": "run commands in",
    "attach": "attach to",
    "portForward": "forward ports to",
    "cri": "stream from",
    "checkpoint": "checkpoint",
}


class KubeletServer:
    """`serve` listens with the certificate of a file; `reload` takes the file's new content for new connections."""

    def __init__(self, agent: Agent, *, log: Callable[[str], None]) -> None:
        self._agent = agent
        self._config: NodeConfig = agent.config
        self._log = log
        self._access = Access(agent.kube, agent.config.node_name, agent.services.timing)
        self._context: ssl.SSLContext | None = None
        self._certificate = Path()
        self.port = 0

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/healthz", _healthy)
        app.router.add_get("/healthz/{check:.*}", _healthy)
        app.router.add_get("/", _healthy)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/pods/", self._pods)
        app.router.add_get("/runningpods/", self._running_pods)
        app.router.add_get("/runningpods", self._running_pods)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_get("/stats/summary", self._summary)
        app.router.add_get("/metrics", self._metrics)
        for path, what in _NO_SUCH.items():
            app.router.add_route("*", f"/{path}/{{rest:.*}}", _instead(what))
        return app

    async def serve(self, certificate: Path) -> None:
        """Until cancelled. Raises: OSError when the address is taken."""
        self._certificate = certificate
        self._context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        context.load_cert_chain(certificate)
        if self._config.ca_file:
            context.load_verify_locations(self._config.ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL
        runner = web.AppRunner(self.application(), access_log=None, handle_signals=False, shutdown_timeout=2)
        await runner.setup()
        try:
            await self._listen(runner, context)
            self._log(f"kubelet API listening on {self._config.listen_address}:{self.port}")
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner, context: ssl.SSLContext) -> None:
        """Waits for a port that is still taken, as by the agent before us."""
        said = False
        while True:
            site = web.TCPSite(runner, self._config.listen_address, self._config.port, ssl_context=context)
            try:
                await site.start()
            except OSError as error:
                if not said:
                    self._log(f"cannot listen on {self._config.listen_address}:{self._config.port}: {error.strerror}")
                said = True
                await asyncio.sleep(1)
            else:
                self.port = runner.addresses[0][1]
                return

    def reload(self) -> None:
        if self._context is not None:
            self._context.load_cert_chain(self._certificate)

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path in ("/", "/healthz"):
            return await handler(request)  # says nothing but that the agent lives
        caller = await self._caller(request)
        if caller is None:
            return web.Response(status=401, text="Unauthorized\n")
        verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(request.method, "get")
        resource = resource_of(request.path)
        allowed, why = await self._access.allowed(caller, verb, resource)
        if not allowed:
            text = f"Forbidden (user={caller.user}, verb={verb}, resource=nodes, subresource={resource})"
            return web.Response(status=403, text=f"{text}{f': {why}' if why else ''}\n")
        return await handler(request)

    async def _caller(self, request: web.Request) -> Caller | None:
        transport = request.transport
        peer: Mapping[str, Any] | None = transport.get_extra_info("peercert") if transport is not None else None
        if peer:
            return _from_certificate(peer)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return await self._access.by_token(token.strip())
        return None

    async def _pods(self, _: web.Request) -> web.Response:
        return _json(_pod_list(self._agent.pods.workers.values()))

    async def _running_pods(self, _: web.Request) -> web.Response:
        return _json(_pod_list(w for w in self._agent.pods.workers.values() if w.phase == "Running"))

    async def _summary(self, _: web.Request) -> web.Response:
        workers = list(self._agent.pods.workers.values())
        value = await asyncio.to_thread(
            summary, self._config.node_name, self._config.directory, workers, self._agent.services.now()
        )
        return _json(value)

    async def _metrics(self, _: web.Request) -> web.Response:
        text = metrics_text(self._agent.pods.workers.values(), self._agent.runtime.connected, {})
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["container"]
        worker = self._agent.pods.find(request.match_info["namespace"], request.match_info["pod"])
        if worker is None or worker.pod.container(name) is None:
            return web.Response(status=404, text=f"container {name!r} of that pod is not on this node\n")
        try:
            options, previous = log_options(request.query, self._agent.services.now())
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        attempt = worker.log_attempt(name, previous=previous)
        if attempt is None:
            return web.Response(status=400, text=worker.no_log(name, previous=previous) + "\n")
        path = self._agent.services.log_path(worker.pod.uid, name, attempt)
        if not log_files(path) and not worker.attempt_runs(name, attempt):
            return web.Response(status=404, text=f"the log of container {name!r} is gone\n")
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            async for chunk in read_log(path, options, lambda: not worker.attempt_runs(name, attempt)):
                await response.write(chunk)
            await response.write_eof()
        except (ConnectionResetError, BrokenPipeError):
            pass  # the reader has had enough
        return response


def log_options(query: Mapping[str, str], now: float) -> tuple[LogOptions, bool]:
    """Options and whether the previous attempt is meant. Raises: ValueError saying what is wrong."""

    def flag(name: str) -> bool:
        text = query.get(name, "false").lower()
        if text not in ("true", "false", "1", "0", ""):
            raise ValueError(f"{name} must be true or false, not {query[name]!r}")
        return text in ("true", "1")

    def number(name: str) -> int | None:
        text = query.get(name)
        if text in (None, ""):
            return None
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"{name} must be a whole number, not {text!r}") from None
        if value < 0:
            raise ValueError(f"{name} must not be negative")
        return value

    tail = None if query.get("tailLines") in ("-1", "all") else number("tailLines")
    seconds = number("sinceSeconds")
    since = now - seconds if seconds is not None else None
    if query.get("sinceTime"):
        if since is not None:
            raise ValueError("sinceTime and sinceSeconds exclude each other")
        try:
            since = moment_of(query["sinceTime"])
        except ValueError:
            raise ValueError(f"sinceTime must be an RFC 3339 time, not {query['sinceTime']!r}") from None
    stream = query.get("stream", "").lower()
    if stream not in ("", "all", "stdout", "stderr"):
        raise ValueError(f"stream must be All, Stdout or Stderr, not {query['stream']!r}")
    options = LogOptions(
        follow=flag("follow"),
        timestamps=flag("timestamps"),
        tail=tail,
        since=since,
        limit=number("limitBytes"),
        stream="" if stream == "all" else stream,
    )
    return options, flag("previous")


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok")


def _instead(what: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=501, text=_INSTEAD.format(what=what) + "\n")

    return answer


def _from_certificate(peer: Mapping[str, Any]) -> Caller | None:
    """User and groups of a client certificate that TLS has verified."""
    names = [pair for part in peer.get("subject") or () for pair in part]
    user = next((value for key, value in names if key == "commonName"), "")
    groups = tuple(value for key, value in names if key == "organizationName")
    return Caller(user, (*groups, "system:authenticated")) if user else None


def _pod_list(workers: Any) -> dict[str, Any]:
    items = [_shown(worker) for worker in workers]
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}


def _shown(worker: PodWorker) -> dict[str, Any]:
    status = worker.status
    return {**worker.pod.raw, "status": status} if status is not None else worker.pod.raw


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")
