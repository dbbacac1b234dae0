"""Ports and address blocks that stay, and are never given twice."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cinderctl.host.files import CorruptFileError
from cinderctl.host.ports import allocate_block, free_port, is_bound, port_owner, release_block, release_ports


@contextmanager
def listening(address: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_is_chosen_once(tmp_path: Path) -> None:
    first = free_port(tmp_path, "cinder/etcd-client")
    assert free_port(tmp_path, "cinder/etcd-client", preferred=first + 1) == first
    with listening(port=first):  # its own server runs by now
        assert free_port(tmp_path, "cinder/etcd-client") == first
    assert free_port(tmp_path, "cinder/etcd-peer") != first


def test_a_wish_is_granted_unless_taken(tmp_path: Path) -> None:
    with listening() as port:
        pass
    assert free_port(tmp_path, "a/api", preferred=port) == port
    assert free_port(tmp_path, "b/api", preferred=port) != port
    assert free_port(tmp_path, "c/api", preferred=port, address="127.0.0.2") == port
    with listening() as busy:
        assert free_port(tmp_path, "d/api", preferred=busy) != busy
    with listening("0.0.0.0") as busy:
        assert free_port(tmp_path, "e/api", preferred=busy) != busy


def test_released_ports_are_free_again(tmp_path: Path) -> None:
    release_ports(tmp_path, "a/")
    with listening() as port:
        pass
    free_port(tmp_path, "a/api", preferred=port)
    free_port(tmp_path, "ab/api")
    release_ports(tmp_path, "a/")
    assert free_port(tmp_path, "b/api", preferred=port) == port
    assert "ab/api" in (tmp_path / "ports.json").read_text()


def test_ports_lie_below_those_of_outgoing_connections(tmp_path: Path) -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(free_port(tmp_path, f"c/{n}") < min(low, 32768) for n in range(5))


def test_many_at_once_get_different_ports(tmp_path: Path) -> None:
    got: list[int] = []
    threads = [threading.Thread(target=lambda n=n: got.append(free_port(tmp_path, f"{n}/x"))) for n in range(8)]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 8


def test_damaged_allocations_are_not_forgotten_silently(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"a": 1}')
    with pytest.raises(CorruptFileError, match=r"ports\.json is damaged"):
        free_port(tmp_path, "a/x")


def test_who_has_a_port() -> None:
    with listening() as port:
        assert is_bound("127.0.0.1", port)
        assert port_owner("127.0.0.1", port).startswith(f"pid {os.getpid()} (")
    assert not is_bound("127.0.0.1", port)
    assert port_owner("127.0.0.1", port) == ""


def test_blocks_are_unique_and_stay(tmp_path: Path) -> None:
    assert [allocate_block(tmp_path, name) for name in ("a", "b", "a", "c")] == [244, 243, 244, 242]
    release_block(tmp_path, "b")
    release_block(tmp_path, "b")
    assert allocate_block(tmp_path, "d") == 243
    blocks = [allocate_block(tmp_path, f"n{n}", preferred=2) for n in range(4)]
    assert blocks == [2, 1, 3, 4]
