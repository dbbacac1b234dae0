"""HTTP for downloads: connections, proxies, time limits, and every way a transfer fails turned into our errors."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ProxySchemeUnknown,
    SSLError,
)
from urllib3.exceptions import TimeoutError as Timeout
from urllib3.util import make_headers

from cinderctl.binaries.errors import (
    DownloadError,
    NotPublishedError,
    StalledError,
    TruncatedError,
    UnreachableError,
)

__all__ = ["Transport", "proxy_for"]

_REDIRECTS = 5
_TEXT_LIMIT = 1024 * 1024
_PROXY_HINT = "check this host's network; a proxy is taken from HTTPS_PROXY and HTTP_PROXY"


def proxy_for(url: str, environment: Mapping[str, str]) -> str:
    """The proxy for a URL by the usual variables (lower case wins; NO_PROXY excepts hosts), "" for none."""
    parts = urlsplit(url)
    lowered = {name.lower(): value for name, value in environment.items() if name.isupper()}
    lowered |= {name: value for name, value in environment.items() if name.islower()}
    proxy = lowered.get(f"{parts.scheme}_proxy") or lowered.get("all_proxy") or ""
    if not proxy or _excepted(parts.hostname or "", parts.port, lowered.get("no_proxy", "")):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _excepted(host: str, port: int | None, no_proxy: str) -> bool:
    """NO_PROXY holds host names (which stand for their subdomains too), optionally with a port, networks, or `*`."""
    for entry in filter(None, (word.strip().lower() for word in no_proxy.split(","))):
        with contextlib.suppress(ValueError):
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
        name, colon, only_port = entry.partition(":")
        name = name.lstrip(".")
        if colon and only_port != str(port):
            continue
        if entry == "*" or host == name or host.endswith(f".{name}"):
            return True
    return False


@dataclass(slots=True)
class Transport:
    """One run's connections. `unreachable` keeps hosts that could not be reached, so that a closed network costs one
    attempt per host and not one per file."""

    environment: Mapping[str, str]
    connect_timeout: float
    stall_timeout: float
    unreachable: dict[str, str] = field(default_factory=dict)
    _pools: dict[str, urllib3.PoolManager] = field(default_factory=dict)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.clear()

    def text(self, url: str) -> str:
        """A small text file. Raises: DownloadError."""
        with self.open(url) as response, self.reading(url):
            body = response.read(_TEXT_LIMIT + 1)
        if len(body) > _TEXT_LIMIT:
            raise DownloadError("a checksum file larger than 1 MiB", url)
        return body.decode(errors="replace")

    @contextlib.contextmanager
    def open(self, url: str, *, offset: int = 0) -> Iterator[urllib3.BaseHTTPResponse]:
        """A response whose body is not yet read: 200, or for an `offset` also 206 or 416.

        Raises: NotPublishedError (404, 410), UnreachableError, StalledError, DownloadError.
        """
        response = self._follow(url, offset)
        try:
            if response.status in {404, 410}:
                raise NotPublishedError(f"not published: the server answered {response.status}", url)
            if response.status not in ({200, 206, 416} if offset else {200}):
                raise DownloadError(f"the server answered {response.status} {response.reason or ''}".rstrip(), url)
            yield response
        finally:
            response.close()

    @contextlib.contextmanager
    def reading(self, url: str) -> Iterator[None]:
        """Translate what reading a body raises. Raises: StalledError, TruncatedError."""
        try:
            yield
        except Timeout as error:
            raise StalledError(f"the transfer stalled: nothing arrived for {self.stall_timeout:g} s", url) from error
        except ProtocolError as error:
            raise TruncatedError("the transfer ended before the file did", url) from error
        except HTTPError as error:
            raise TruncatedError("the connection broke", url, detail=str(error)) from error

    def _follow(self, url: str, offset: int) -> urllib3.BaseHTTPResponse:
        """Redirects by hand: the connection pool differs by proxy, and a step down from https is refused."""
        at = url
        for _ in range(_REDIRECTS + 1):
            response = self._request(at, offset)
            target = response.headers.get("Location", "")
            if response.status not in {301, 302, 303, 307, 308} or not target:
                return response
            response.close()
            following = urljoin(at, target)
            if at.startswith("https:") and not following.startswith("https:"):
                raise UnreachableError(
                    "refusing a redirect from https to an unprotected address", url, detail=following
                )
            at = following
        raise DownloadError(f"more than {_REDIRECTS} redirects", url)

    def _request(self, url: str, offset: int) -> urllib3.BaseHTTPResponse:
        origin = urlsplit(url).netloc
        if origin in self.unreachable:
            raise UnreachableError(f"{origin} is unreachable", url, detail=self.unreachable[origin], hint=_PROXY_HINT)
        headers = {"Accept-Encoding": "identity", "User-Agent": "cinderctl"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            return self._pool(url).request(
                "GET", url, headers=headers, preload_content=False, decode_content=False, redirect=False, retries=False
            )
        except (
            NewConnectionError,
            ProtocolError,
            ProxyError,
            SSLError,
            ProxySchemeUnknown,
            ConnectTimeoutError,
        ) as error:
            self.unreachable[origin] = str(error)
            raise UnreachableError(f"{origin} is unreachable", url, detail=str(error), hint=_PROXY_HINT) from error
        except Timeout as error:
            raise StalledError(f"no answer within {self.stall_timeout:g} s", url) from error
        except (LocationParseError, ValueError) as error:
            raise DownloadError("not a URL that can be fetched", url, detail=str(error)) from error
        except HTTPError as error:
            raise TruncatedError("the connection broke before the answer", url, detail=str(error)) from error

    def _pool(self, url: str) -> urllib3.PoolManager:
        proxy = proxy_for(url, self.environment)
        if proxy not in self._pools:
            timeout = urllib3.Timeout(connect=self.connect_timeout, read=self.stall_timeout)
            if proxy:
                parts = urlsplit(proxy)
                user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
                plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
                headers = make_headers(proxy_basic_auth=user) if user else None
                self._pools[proxy] = urllib3.ProxyManager(plain, proxy_headers=headers, timeout=timeout)
            else:
                self._pools[proxy] = urllib3.PoolManager(timeout=timeout)
        return self._pools[proxy]
