"""Virtual addresses and where they really are. Pure.

Kubernetes refuses 127/8 in EndpointSlices and node proxies, and an ordinary user can bind nothing else. So pods and
nodes have virtual addresses from the pod range, and listen on the loopback address with the same low 16 bits: with
block 244, 10.244.a.b is 127.244.a.b. Where only 127.0.0.1 can be bound, `entries` say what stands for an address
and port.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from cinderctl.core.diagnostics import CinderError

__all__ = ["AddressTable", "PodRangeError"]

_LOW = 0xFFFF


class PodRangeError(CinderError):
    """A pod range, block or entry that cannot be mapped to loopback."""


@dataclass(frozen=True, slots=True)
class AddressTable:
    """`pod_cidr` is an IPv4 range of at most 65536 addresses, `block` the second octet of its place in 127/8 (1–255).

    `entries`: "<virtual address>:<port>" -> "<host>:<port>"; they come before the rule. Raises PodRangeError.
    """

    pod_cidr: str = "10.244.0.0/16"
    block: int = 244
    entries: Mapping[str, str] = field(default_factory=dict)
    _network: IPv4Network = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            network = IPv4Network(self.pod_cidr, strict=False)
        except (AddressValueError, NetmaskValueError, ValueError) as problem:
            raise PodRangeError(f"{self.pod_cidr!r} is no IPv4 range", hint="write it as 10.244.0.0/16") from problem
        if network.prefixlen < 16:
            raise PodRangeError(
                f"the pod range {network} is too large for the loopback network",
                detail=f"It has {network.num_addresses} addresses; a block of loopback has 65536",
                hint="use a prefix of /16 or longer, as 10.244.0.0/16",
            )
        if network.is_loopback:
            raise PodRangeError(f"the pod range {network} is loopback, which Kubernetes refuses for pods")
        if not 1 <= self.block <= 255:
            raise PodRangeError(f"{self.block} is no block of loopback addresses", hint="use 1 to 255")
        for name, real in self.entries.items():
            if _split(name) is None or _split(real) is None:
                raise PodRangeError(f"{name} = {real} is no entry of the address table", hint="write address:port")
        object.__setattr__(self, "_network", network)

    def to_real(self, ip: str, port: int) -> tuple[str, int] | None:
        """Where a virtual address and port really listen; None for what is not of this cluster."""
        if not 1 <= port <= 65535:
            return None
        entry = self.entries.get(f"{ip}:{port}")
        if entry is not None:
            return _split(entry)
        address = _address(ip)
        if address is None or address not in self._network:
            return None
        return str(IPv4Address((127 << 24) | (self.block << 16) | (int(address) & _LOW))), port

    def to_virtual(self, ip: str) -> str | None:
        """The virtual address a loopback address of our block stands for; None for others."""
        address = _address(ip)
        if address is None or int(address) >> 16 != (127 << 8) | self.block:
            return None
        virtual = IPv4Address((int(self._network.network_address) & ~_LOW) | (int(address) & _LOW))
        return str(virtual) if virtual in self._network else None


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def _split(text: str) -> tuple[str, int] | None:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        return None
    return host, int(port)
