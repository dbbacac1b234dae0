"""Which loopback address stands for which virtual one."""

from __future__ import annotations

import pytest

from cinderctl.podnet.table import AddressTable, PodRangeError


@pytest.mark.parametrize(
    ("ip", "port", "real"),
    [
        ("10.244.1.5", 8080, ("127.244.1.5", 8080)),
        ("10.244.255.2", 3000, ("127.244.255.2", 3000)),
        ("10.245.0.1", 80, None),
        ("10.96.0.1", 443, None),
        ("127.0.0.1", 22, None),
        ("127.244.1.5", 8080, None),
        ("169.254.169.254", 80, None),
        ("0.0.0.0", 80, None),
        ("::1", 80, None),
        ("example.com", 80, None),
        ("10.244.1.05", 80, None),
        ("10.244.1.5", 0, None),
        ("10.244.1.5", 65536, None),
    ],
)
def test_only_addresses_of_the_pod_range_lead_somewhere(ip: str, port: int, real: tuple[str, int] | None) -> None:
    assert AddressTable().to_real(ip, port) == real


def test_each_cluster_has_its_own_block() -> None:
    table = AddressTable("10.32.0.0/16", 243)
    assert table.to_real("10.32.7.9", 80) == ("127.243.7.9", 80)
    assert table.to_virtual("127.243.7.9") == "10.32.7.9"
    assert table.to_virtual("127.244.7.9") is None


def test_smaller_ranges_keep_their_place_in_the_block() -> None:
    table = AddressTable("10.244.8.0/24", 244)
    assert table.to_real("10.244.8.1", 1) == ("127.244.8.1", 1)
    assert table.to_real("10.244.9.1", 1) is None
    assert table.to_virtual("127.244.8.1") == "10.244.8.1"
    assert table.to_virtual("127.244.9.1") is None


def test_entries_come_first_where_only_one_loopback_address_can_be_bound() -> None:
    table = AddressTable(entries={"10.244.255.1:3000": "127.0.0.1:41001"})
    assert table.to_real("10.244.255.1", 3000) == ("127.0.0.1", 41001)
    assert table.to_real("10.244.255.1", 3001) == ("127.244.255.1", 3001)


@pytest.mark.parametrize(
    ("cidr", "block", "entries"),
    [
        ("10.0.0.0/8", 244, {}),
        ("fd00::/64", 244, {}),
        ("nonsense", 244, {}),
        ("127.244.0.0/16", 244, {}),
        ("10.244.0.0/16", 0, {}),
        ("10.244.0.0/16", 256, {}),
        ("10.244.0.0/16", 244, {"10.244.0.1": "127.0.0.1:1"}),
        ("10.244.0.0/16", 244, {"10.244.0.1:1": "127.0.0.1:99999"}),
    ],
)
def test_what_cannot_be_mapped_is_refused(cidr: str, block: int, entries: dict[str, str]) -> None:
    with pytest.raises(PodRangeError):
        AddressTable(cidr, block, entries)
