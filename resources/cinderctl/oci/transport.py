"""One HTTP request to a registry: connections, TLS, logins, retries, redirects. Knows nothing of manifests and blobs.

Credentials go to the origin they belong to and to the token server it names, never along a redirect. Retries are
bounded, spaced by full jitter, and longer only where the server says so (`Retry-After`).
"""

from __future__ import annotations

import json
import random
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import IO, Final, Protocol, TypeAlias, cast
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.exceptions import SSLError as TlsError

from cinderctl.core.diagnostics import TransientError
from cinderctl.oci.auth import Credentials
from cinderctl.oci.blob import CHUNK
from cinderctl.oci.challenge import Authorizer, parse_challenges
from cinderctl.oci.errors import (
    OciError,
    RateLimitedError,
    RegistryProtocolError,
    RegistryRefusedError,
    RegistryUnreachableError,
    UnauthorizedError,
)
from cinderctl.oci.hosts import Endpoint
from cinderctl.oci.proxy import Proxies

__all__ = [
    "Body",
    "BodyFile",
    "NameUnknownError",
    "Options",
    "Request",
    "Transport",
    "finish",
    "refusal",
    "unreachable",
]


_REDIRECTS: Final = {301, 302, 303, 307, 308}
_PASSING: Final = {500, 502, 503, 504}
_MAX_REDIRECTS: Final = 5
_MAX_ERROR_BODY: Final = 64 * 1024
_MAX_TOKEN_BODY: Final = 256 * 1024


class BodyFile(Protocol):
    """What a body read from a file has to offer; it is rewound for another attempt."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...


Body: TypeAlias = bytes | BodyFile | None


class NameUnknownError(RegistryUnreachableError):
    """The registry's name does not resolve: it may be nothing but an alias for its mirrors."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to talk.

    Times in seconds; `attempts` counts the first one; `ca` is a PEM file trusted beside the system's.
    """

    user_agent: str = "cinderctl"
    attempts: int = 5
    backoff: float = 0.2  # the first wait is up to this, then doubling
    longest_backoff: float = 5.0
    longest_retry_after: float = 60.0  # a server that asks for more gets an error that says so
    connect_timeout: float = 10.0
    read_timeout: float = 60.0  # without a byte
    ca: str = ""
    proxies: Proxies = field(default_factory=Proxies)
    sleep: Callable[[float], None] = time.sleep  # may raise to give up
    uniform: Callable[[float, float], float] = random.uniform
    clock: Callable[[], float] = time.monotonic

    def pause(self, attempt: int) -> float:
        """Seconds to wait after the attempt of this number, by full jitter."""
        return self.uniform(0, min(self.longest_backoff, self.backoff * 2.0 ** (attempt - 1)))


@dataclass(frozen=True, slots=True)
class Request:
    """`what` names the thing for error texts; `access` is `pull` or `pull,push`; a file body is sent from its start."""

    method: str
    url: str
    repository: str
    what: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = None
    access: str = "pull"


class Transport:
    """Connection pools and what origins granted, shared by every client made from it. Safe to use from threads."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._pools: dict[tuple[str, str, str, str], urllib3.PoolManager] = {}
        self._resting: dict[str, float] = {}
        self._authorizer = Authorizer(self._exchange, options.clock)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.clear()

    def rest(self, origin: str, seconds: float) -> None:
        """Remember that an origin is out of reach."""
        self._resting[origin] = self.options.clock() + seconds

    def rests(self, origin: str) -> bool:
        return self._resting.get(origin, 0.0) > self.options.clock()

    def send(
        self,
        endpoint: Endpoint,
        request: Request,
        credentials: Credentials,
        hosts: tuple[str, ...],
        *,
        attempts: int = 0,
    ) -> BaseHTTPResponse:
        """The final answer with its body unread; the caller closes it. Statuses of 4xx other than 401, 403, 429 are
        answers too. `hosts`: whose logins to use.

        Raises: UnauthorizedError, RateLimitedError, RegistryUnreachableError, RegistryProtocolError, CredentialsError.
        """
        options, attempt = self.options, 1
        while True:
            try:
                response = self._authorized(endpoint, request, credentials, hosts)
            except (RateLimitedError, RegistryUnreachableError) as failed:
                error: OciError = failed
            else:
                if response.status != 429 and response.status not in _PASSING:
                    return response
                error = refusal(response, request.what, endpoint)
            if attempt >= (attempts or options.attempts) or not _worth_another(error, options.longest_retry_after):
                if isinstance(error, TransientError):
                    error.retry_after = max(error.retry_after, options.longest_backoff)
                raise error
            asked = error.retry_after if isinstance(error, TransientError) else 0.0
            options.sleep(asked + options.pause(attempt))
            attempt += 1

    def _authorized(
        self, endpoint: Endpoint, request: Request, credentials: Credentials, hosts: tuple[str, ...]
    ) -> BaseHTTPResponse:
        key = (endpoint.origin, request.repository, request.access, credentials.fingerprint)
        known = self._authorizer.known(*key)
        response = self._follow(endpoint, request, known)
        if response.status not in {401, 403}:
            return response
        self._authorizer.forget(*key)
        challenges = parse_challenges(response.headers.getlist("WWW-Authenticate"))
        denied = response.status, _words_of(response)  # closed before anything else can fail
        logins = [login for host in hosts for login in credentials.logins(host, request.repository)]
        for answer in self._authorizer.answers(endpoint, challenges, request.repository, request.access, logins):
            response = self._follow(endpoint, request, answer[0])
            if response.status not in {401, 403}:
                self._authorizer.keep(*key, answer)
                return response
            denied = response.status, _words_of(response)
        status, said = denied
        raise UnauthorizedError(
            f"{endpoint.origin} does not give access to {request.what} ({status})",
            detail="; ".join(filter(None, (said, "" if logins else "no login is known for it"))),
            hint="" if logins else "log in with `docker login`, or add an image pull secret",
        )

    def _follow(self, endpoint: Endpoint, request: Request, authorization: str) -> BaseHTTPResponse:
        """One round with redirects.

        A redirect to another origin goes without credentials, and never from TLS to none.
        """
        url = request.url
        for _ in range(_MAX_REDIRECTS + 1):
            own = _origin(url) == endpoint.origin
            headers = {"User-Agent": self.options.user_agent, "Accept-Encoding": "identity", **request.headers}
            if authorization and own:
                headers["Authorization"] = authorization
            response = self._round(endpoint, request, url, headers, own=own)
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or not location or request.method not in {"GET", "HEAD"}:
                if own or response.status not in {401, 403}:
                    return response
                with closing(response):
                    raise RegistryRefusedError(
                        f"{_origin(url)} answered {response.status} for {request.what}, sent there by {endpoint.origin}"
                    )
            finish(response)
            target = urljoin(url, location)
            if urlsplit(target).scheme not in {"http", "https"}:
                raise RegistryProtocolError(f"{endpoint.origin} redirects {request.what} to `{target[:100]}`")
            if url.startswith("https://") and not target.startswith("https://"):
                raise RegistryProtocolError(
                    f"{endpoint.origin} redirects {request.what} to plain http ({_origin(target)})"
                )
            url = target
        raise RegistryProtocolError(f"{endpoint.origin} redirects {request.what} without end")

    def _round(
        self, endpoint: Endpoint, request: Request, url: str, headers: Mapping[str, str], *, own: bool
    ) -> BaseHTTPResponse:
        if request.body is not None and not isinstance(request.body, bytes):
            request.body.seek(0)
        try:
            return self._pool(endpoint if own else replace(endpoint, client_cert="", client_key=""), url).request(
                request.method,
                url,
                body=cast("bytes | IO[bytes] | None", request.body),
                headers=headers,
                preload_content=False,
                redirect=False,
                retries=False,
            )
        except (HTTPError, ValueError, OSError) as error:
            raise unreachable(error, _origin(url)) from error

    def _exchange(
        self, endpoint: Endpoint, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, bytes]:
        """Ask a token server. Its failures are retried with the request that needed the token."""
        request = Request(method, url, "", "a token", headers, body)
        with closing(
            self._round(endpoint, request, url, {"User-Agent": self.options.user_agent, **headers}, own=False)
        ) as response:
            if response.status in _PASSING or response.status == 429:
                raise refusal(response, "a token", Endpoint(_origin(url)))
            try:
                return response.status, response.read(_MAX_TOKEN_BODY, decode_content=True)
            except (HTTPError, OSError) as error:
                raise unreachable(error, _origin(url)) from error

    def _pool(self, endpoint: Endpoint, url: str) -> urllib3.PoolManager:
        proxy = self.options.proxies.for_url(url)
        secure = url.startswith("https://") or proxy.startswith("https://")
        key = (endpoint.ca, endpoint.client_cert, endpoint.client_key, proxy) if secure else ("", "", "", proxy)
        pool = self._pools.get(key)
        if pool is None:
            timeout = urllib3.Timeout(connect=self.options.connect_timeout, read=self.options.read_timeout)
            context = self._tls(endpoint) if secure else None
            pool = (
                urllib3.ProxyManager(proxy, maxsize=8, blocksize=CHUNK, timeout=timeout, ssl_context=context)
                if proxy
                else urllib3.PoolManager(maxsize=8, blocksize=CHUNK, timeout=timeout, ssl_context=context)
            )
            self._pools[key] = pool
        return pool

    def _tls(self, endpoint: Endpoint) -> ssl.SSLContext:
        context = ssl.create_default_context()
        for path in (self.options.ca, endpoint.ca):
            if path:
                _load(path, partial(context.load_verify_locations, path))
        if endpoint.client_cert:
            key = endpoint.client_key or endpoint.client_cert
            _load(endpoint.client_cert, partial(context.load_cert_chain, endpoint.client_cert, key))
        return context


def finish(response: BaseHTTPResponse) -> None:
    """Done with an answer whose body does not matter. Its connection is used again where little is left to read."""
    left = response.length_remaining  # 0 for HEAD, None when only the end tells
    if left is not None and left <= _MAX_ERROR_BODY:
        response.drain_conn()
    response.close()


def refusal(response: BaseHTTPResponse, what: str, endpoint: Endpoint) -> OciError:
    """An answer that is no success, as an error with the registry's own words. Closes the response."""
    said = _words_of(response)
    summary = f"{endpoint.origin} answered {response.status} for {what}"
    wait = _retry_after(response)
    if response.status == 429:
        return RateLimitedError(summary, detail=said, retry_after=wait)
    if response.status >= 500:
        return RegistryUnreachableError(summary, detail=said, retry_after=wait)
    return RegistryRefusedError(summary, detail=said)


def unreachable(error: Exception, origin: str) -> OciError:
    """What urllib3 raised, in our words."""
    if isinstance(error, NameResolutionError):
        return NameUnknownError(f"{origin} cannot be reached: its name does not resolve")
    if isinstance(error, TlsError):
        words = str(error)
        hint = ""
        if "CERTIFICATE_VERIFY_FAILED" in words:
            hint = "name its certificate authority as the `ca` of a mirror endpoint"
        elif "WRONG_VERSION_NUMBER" in words or "RECORD_LAYER" in words:
            hint = f"it seems to speak plain http: mirror it to `{origin.replace('https://', 'http://')}`"
        return _HopelessError(f"{origin} cannot be trusted: TLS failed", detail=words, hint=hint)
    if isinstance(error, NewConnectionError):
        reason = str(error).rpartition("] ")[2]
        return RegistryUnreachableError(f"{origin} cannot be reached: {reason}", retry_after=0.0)
    if isinstance(error, ConnectTimeoutError):
        return RegistryUnreachableError(f"{origin} cannot be reached: it does not answer", retry_after=0.0)
    if isinstance(error, ReadTimeoutError | TimeoutError):
        return RegistryUnreachableError(f"{origin} stopped answering", retry_after=0.0)
    if isinstance(error, InvalidHeader | ValueError) and not isinstance(error, HTTPError | OSError):
        return RegistryProtocolError(f"{origin} cannot be asked: {error}")
    return RegistryUnreachableError(f"the connection to {origin} broke", detail=str(error), retry_after=0.0)


class _HopelessError(RegistryUnreachableError):
    """Unreachable in a way that trying again does not mend."""


def _worth_another(error: OciError, longest: float) -> bool:
    if isinstance(error, _HopelessError | NameUnknownError):
        return False
    return isinstance(error, TransientError) and error.retry_after <= longest


def _retry_after(response: BaseHTTPResponse) -> float:
    """Seconds the server asks to wait, 0 when it says nothing we understand."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(0.0, urllib3.Retry(0).parse_retry_after(text)) if text else 0.0
    except InvalidHeader:
        return 0.0


def _words_of(response: BaseHTTPResponse) -> str:
    """The messages of the specification's error body, or the start of a short text. Closes the response."""
    with closing(response):
        try:
            body = response.read(_MAX_ERROR_BODY, decode_content=True)
        except (HTTPError, OSError):
            return ""
    try:
        errors = json.loads(body)["errors"]
        words = [f"{error.get('code', '')}: {error.get('message', '')}".strip(": ") for error in errors]
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body.decode("utf-8", "replace").strip()
        return "" if text.startswith("<") else text[:200]
    return "; ".join(words)[:500]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _load(path: str, load: Callable[[], object]) -> None:
    try:
        load()
    except (OSError, ssl.SSLError) as error:
        raise RegistryProtocolError(f"the certificate file {path} cannot be used: {error}") from error
