"""Addresses of pods: one each from the node's range, kept while the pod lives."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

__all__ = ["Addresses"]


class Addresses:
    """`cidr` empty: every pod has the node's address. An exhausted range gives the node's address as well."""

    def __init__(self, cidr: str, node_ip: str, taken: Mapping[str, str]) -> None:
        """`taken`: uid → address of pods known from before."""
        self._node_ip = node_ip
        self._range = ipaddress.ip_network(cidr) if cidr else None
        self._by_uid: dict[str, str] = {}
        self._used: set[str] = {node_ip}
        self._next = 0
        for uid, ip in taken.items():
            self._take(uid, ip)

    def of(self, uid: str, *, host_network: bool = False, before: str = "") -> str:
        """The pod's address; `before` is one the API knows it by, kept when it is free."""
        if host_network or self._range is None:
            return self._node_ip
        known = self._by_uid.get(uid)
        if known is not None:
            return known
        if before and before not in self._used and ipaddress.ip_address(before) in self._range:
            return self._take(uid, before)
        count = self._range.num_addresses
        if len(self._used) > count - 2:
            return self._node_ip
        # The first address is the network's, the last the broadcast address; the search goes round so that a fresh pod
        # does not get the address of one that just went.
        for step in range(max(0, count - 2)):
            offset = 1 + (self._next + step) % (count - 2)
            address = str(self._range[offset])
            if address not in self._used:
                self._next = offset
                return self._take(uid, address)
        return self._node_ip

    def release(self, uid: str) -> None:
        """The address may be given again. A finished pod keeps showing its own, so two may share one for a while."""
        address = self._by_uid.pop(uid, None)
        if address is not None and address != self._node_ip and address not in self._by_uid.values():
            self._used.discard(address)

    def _take(self, uid: str, address: str) -> str:
        self._by_uid[uid] = address
        self._used.add(address)
        return address
