"""Which proxy a request goes through: the common HTTP_PROXY, HTTPS_PROXY, NO_PROXY conventions, given as values."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from cinderctl.oci.hosts import is_loopback_host

__all__ = ["Proxies"]


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxy URLs by the scheme of the request.

    `no_proxy`: hosts, `.suffixes`, addresses, CIDRs, `host:port`, or `*`.
    """

    http: str = ""
    https: str = ""
    no_proxy: tuple[str, ...] = ()

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Proxies:
        """From variables as a shell has them; lower case wins, as in curl."""

        def value(name: str) -> str:
            return env.get(name.lower()) or env.get(name) or ""

        return cls(value("HTTP_PROXY"), value("HTTPS_PROXY"), tuple(value("NO_PROXY").replace(",", " ").split()))

    def for_url(self, url: str) -> str:
        """The proxy's URL, or nothing for a direct connection. Loopback is never proxied."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        if not proxy or is_loopback_host(parts.netloc) or any(_covers(rule, url) for rule in self.no_proxy):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"


def _covers(rule: str, url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if rule == "*":
        return True
    if "/" in rule:
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
        except ValueError:
            return False
    name, colon, port = rule.rpartition(":")
    if colon and port.isdigit() and ":" not in name:
        if port != str(parts.port or (443 if parts.scheme == "https" else 80)):
            return False
        rule = name
    rule = rule.lower().removeprefix("*").strip("[]")
    return host == rule.lstrip(".") or host.endswith(f".{rule.lstrip('.')}")
