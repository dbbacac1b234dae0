"""Where to ask for a registry's content: its mirrors in order, then the registry itself.

The mirrors file of a cluster's nodes is JSON, written by the `registry_mirror` kind and read again by the agents when
it changed:

    {"mirrors": {"docker.io":      [{"url": "https://mirror.example", "overridePath": false}],
                 "cinderegg:5000": [{"url": "http://localhost:5000"}],
                 "_default":       [{"url": "https://cache.example", "ca": "/etc/ca.crt"}]},
     "exclusive": ["cinderegg:5000"]}

`_default` stands for every registry without an entry of its own. A registry under `exclusive` exists only through its
mirrors: an alias, or a registry nobody may reach directly. An endpoint's optional fields: `overridePath` (the URL's
path is the whole prefix, no `/v2` is added), `ca`, `clientCert`, `clientKey` (PEM files). Plain http is used where an
endpoint's URL says so, and for a registry on loopback; nowhere else.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from cinderctl.oci.errors import MirrorsFileError
from cinderctl.oci.reference import DEFAULT_REGISTRY

__all__ = ["DEFAULT_MIRRORS", "Endpoint", "Hosts", "HostsFile", "is_loopback_host", "load_hosts", "upstream"]

DEFAULT_MIRRORS: Final = "_default"
_HUB_HOST: Final = "registry-1.docker.io"  # docker.io itself serves no registry
_ENDPOINT_FIELDS: Final = {"url", "overridePath", "ca", "clientCert", "clientKey"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to ask.

    `url` has a scheme; `ca`, `client_cert`, `client_key` are paths of PEM files, empty for the system's.
    """

    url: str
    override_path: bool = False
    ca: str = ""
    client_cert: str = ""
    client_key: str = ""

    @property
    def plain_http(self) -> bool:
        return self.url.startswith("http://")

    @property
    def origin(self) -> str:
        """Scheme and authority: whom credentials belong to."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def host(self) -> str:
        """Authority of the URL, `host[:port]`."""
        return urlsplit(self.url).netloc

    @property
    def base(self) -> str:
        """The prefix of every request, without a last slash: the URL and `/v2`; only the URL with `override_path`."""
        url = self.url.rstrip("/")
        return url if self.override_path or url.endswith("/v2") else f"{url}/v2"

    @classmethod
    def from_json(cls, value: Any) -> Endpoint:
        """Raises: ValueError saying what is wrong."""
        if not isinstance(value, Mapping):
            raise ValueError("an endpoint is an object with `url`")
        unknown = sorted(set(value) - _ENDPOINT_FIELDS)
        if unknown:
            raise ValueError(f"unknown field `{unknown[0]}`")
        override = value.get("overridePath", False)
        texts = {name: value.get(name, "") for name in ("url", "ca", "clientCert", "clientKey")}
        wrong = [name for name, text in texts.items() if not isinstance(text, str)]
        if wrong or not isinstance(override, bool):
            raise ValueError(f"`{wrong[0] if wrong else 'overridePath'}` has the wrong type")
        _check_url(texts["url"])
        return cls(texts["url"], override, texts["ca"], texts["clientCert"], texts["clientKey"])

    def to_json(self) -> dict[str, Any]:
        value: dict[str, Any] = {"url": self.url, "overridePath": self.override_path}
        files = {"ca": self.ca, "clientCert": self.client_cert, "clientKey": self.client_key}
        return value | {name: path for name, path in files.items() if path}


@dataclass(frozen=True, slots=True)
class Hosts:
    """The mirrors of each registry, by the name references use (`docker.io`, `cinderegg:5000`, `_default`)."""

    mirrors: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=lambda: MappingProxyType({}))
    exclusive: frozenset[str] = frozenset()

    def mirrors_of(self, registry: str) -> tuple[Endpoint, ...]:
        own = self.mirrors.get(registry)
        return self.mirrors.get(DEFAULT_MIRRORS, ()) if own is None else own

    def endpoints_for(self, registry: str) -> tuple[Endpoint, ...]:
        """Whom to ask, in order: the mirrors, then the registry itself, each once."""
        mirrors = self.mirrors_of(registry)
        if registry in self.exclusive and mirrors:
            return mirrors
        return tuple(dict.fromkeys((*mirrors, upstream(registry))))

    def push_endpoint(self, registry: str) -> Endpoint:
        """Where writes go: the registry itself; for an exclusive one its first mirror."""
        return self.endpoints_for(registry)[0] if registry in self.exclusive else upstream(registry)

    @classmethod
    def from_json(cls, value: Any) -> Hosts:
        """The value of a mirrors file. Raises: ValueError saying which entry is wrong."""
        if not isinstance(value, Mapping) or not isinstance(value.get("mirrors", {}), Mapping):
            raise ValueError("not an object with `mirrors`")
        unknown = sorted(set(value) - {"mirrors", "exclusive"})
        if unknown:
            raise ValueError(f"unknown field `{unknown[0]}`")
        mirrors: dict[str, tuple[Endpoint, ...]] = {}
        for registry, endpoints in value.get("mirrors", {}).items():
            if not isinstance(endpoints, list):
                raise ValueError(f"mirrors.{registry} is not a list")
            try:
                mirrors[registry] = tuple(Endpoint.from_json(endpoint) for endpoint in endpoints)
            except ValueError as error:
                raise ValueError(f"mirrors.{registry}: {error}") from None
        exclusive = value.get("exclusive", [])
        if not isinstance(exclusive, list) or not all(isinstance(name, str) for name in exclusive):
            raise ValueError("`exclusive` is not a list of registries")
        return cls(MappingProxyType(mirrors), frozenset(exclusive))

    def to_json(self) -> dict[str, Any]:
        """The value of a mirrors file: `from_json(to_json(h)) == h`."""
        mirrors = {name: [endpoint.to_json() for endpoint in self.mirrors[name]] for name in sorted(self.mirrors)}
        return {"mirrors": mirrors, "exclusive": sorted(self.exclusive)}


def upstream(registry: str) -> Endpoint:
    """The registry itself: https, or http where it is on loopback (as Docker and containerd treat localhost)."""
    host = _HUB_HOST if registry == DEFAULT_REGISTRY else registry
    return Endpoint(f"{'http' if is_loopback_host(registry) else 'https'}://{host}")


def is_loopback_host(authority: str) -> bool:
    """Whether `host[:port]` names this machine's loopback: `localhost`, `*.localhost`, 127.0.0.0/8, `[::1]`."""
    try:
        host = urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_hosts(path: Path) -> Hosts:
    """The mirrors of a file; none when there is no file. Raises: MirrorsFileError for one that cannot be used."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Hosts()
    except OSError as error:
        raise MirrorsFileError(f"the mirrors file {path} cannot be read: {error.strerror}") from error
    try:
        return Hosts.from_json(json.loads(text))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise MirrorsFileError(
            f"the mirrors file {path} is corrupt", detail=str(error), hint="run `cinderctl apply` to write it anew"
        ) from error


class HostsFile:
    """A mirrors file as it is now: calling it gives the `Hosts`, read again when the file changed.

    Raises on call: MirrorsFileError. Safe to share between threads: at worst two of them read the file.
    """

    def __init__(self, path: Path, load: Callable[[Path], Hosts] = load_hosts) -> None:
        self._path = path
        self._load = load
        self._seen: tuple[tuple[int, int, int] | None, Hosts] | None = None

    def __call__(self) -> Hosts:
        mark = self._mark()
        seen = self._seen
        if seen is not None and seen[0] == mark:
            return seen[1]
        hosts = self._load(self._path)
        self._seen = (mark, hosts)
        return hosts

    def _mark(self) -> tuple[int, int, int] | None:
        """What an atomic rewrite always changes: inode, mtime, size. None while there is no file."""
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"`{url}` is no http or https URL")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("an endpoint's URL has neither query, fragment nor user")
    _ = parts.port  # raises ValueError for a port that is none
