"""Readiness as real servers show it, and logs that stay small."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cinderctl.host.components import Probe
from cinderctl.host.logs import rotate
from cinderctl.host.probes import prober
from cinderctl.pki import Subject, issue, new_private_key, self_signed_ca


@asynccontextmanager
async def serving(answer: bytes, context: ssl.SSLContext | None = None, path: Path | None = None) -> AsyncIterator[int]:
    """A server that gives one answer to whatever is asked: on a free port of loopback, or on a Unix socket (port 0)."""
    open_ones: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        try:
            await reader.readline()
            writer.write(answer)
        except OSError:  # it only looked in
            pass
        finally:
            writer.close()

    if path:
        server: asyncio.Server = await asyncio.start_unix_server(serve, path)
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield 0 if path else server.sockets[0].getsockname()[1]
    finally:
        await asyncio.sleep(0.01)  # the loop accepts what connected already
        server.close()
        await asyncio.gather(*open_ones)
        await asyncio.sleep(0)  # and closes what they left


def look(answer: bytes, **options: object) -> str:
    async def run() -> str:
        async with serving(answer) as port:
            return await prober(Probe("http", f"http://127.0.0.1:{port}/healthz?x", **options))()  # type: ignore[arg-type]

    return asyncio.run(run())


def test_http_is_ready_on_200_with_what_is_expected() -> None:
    good = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"health":"true"}'
    assert look(good) == ""
    assert look(good, expect='"health":"true"') == ""
    assert "lacks" in look(good, expect='"health":"false"')
    assert "HTTP 500 Not yet" in look(b"HTTP/1.1 500 Not yet\r\n\r\n")
    assert "no HTTP answer" in look(b"SSH-2.0\r\n")
    assert "no HTTP answer" in look(b"")


def test_nobody_listening_is_a_reason_not_an_exception(tmp_path: Path) -> None:
    probes = [
        Probe("tcp", "127.0.0.1:1"),
        Probe("tcp", "nonsense"),
        Probe("http", "http://127.0.0.1:1/"),
        Probe("unix", str(tmp_path / "no.sock")),
        Probe("unix", "/x" * 200),
        Probe("file", str(tmp_path / "no")),
        Probe("https", "https://127.0.0.1:1/", ca=str(tmp_path / "no.crt")),
    ]
    assert all(asyncio.run(_look(probe)) for probe in probes)
    assert asyncio.run(_look(Probe())) == ""


async def _look(probe: Probe) -> str:
    return await prober(probe)()


def test_tcp_and_unix_are_ready_when_somebody_accepts(tmp_path: Path) -> None:
    async def run() -> None:
        async with serving(b"") as port:
            assert await _look(Probe("tcp", f"127.0.0.1:{port}")) == ""
        async with serving(b"", path=tmp_path / "s"):
            assert await _look(Probe("unix", str(tmp_path / "s"))) == ""

    asyncio.run(run())


@pytest.mark.parametrize(("trusted", "reason"), [("right", ""), ("", ""), ("wrong", "certificate")])
def test_https_believes_only_its_authority_and_shows_its_certificate(tmp_path: Path, trusted: str, reason: str) -> None:
    begin = datetime.now(UTC) - timedelta(minutes=5)
    keys = {name: new_private_key() for name in ("right", "wrong")}
    authorities = {name: self_signed_ca(key, name, not_before=begin, days=1) for name, key in keys.items()}
    for name, authority in authorities.items():
        (tmp_path / f"{name}.crt").write_bytes(authority)
    for name in ("server", "client"):
        key = new_private_key()
        subject = Subject(name, ip_addresses=("127.0.0.1",))
        cert = issue(
            authorities["right"], keys["right"], key, subject, server=True, client=True, not_before=begin, days=1
        )
        (tmp_path / f"{name}.crt").write_bytes(cert)
        (tmp_path / f"{name}.key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    context.load_verify_locations(tmp_path / "right.crt")
    context.verify_mode = ssl.CERT_REQUIRED

    async def run() -> str:
        async with serving(b"HTTP/1.1 200 OK\r\n\r\nok", context) as port:
            ca = str(tmp_path / f"{trusted}.crt") if trusted else ""
            client = {"cert": str(tmp_path / "client.crt"), "key": str(tmp_path / "client.key")}
            return await _look(Probe("https", f"https://127.0.0.1:{port}/readyz", ca=ca, **client))  # type: ignore[arg-type]

    answer = asyncio.run(run())
    assert reason in answer
    assert bool(answer) == bool(reason)


def test_logs_are_rotated_by_size_while_they_are_written(tmp_path: Path) -> None:
    log = tmp_path / "etcd.log"
    with log.open("ab", buffering=0) as writer:
        for letter in (b"a", b"b", b"c", b"d"):
            writer.write(letter * 100)
            rotate(log, limit=200, keep=3)
            rotate(log, limit=50, keep=3)
        writer.write(b"e")
    contents = [path.read_bytes()[:2] for path in (log, tmp_path / "etcd.log.1", tmp_path / "etcd.log.2")]
    assert contents == [b"e", b"dd", b"cc"]
    assert not (tmp_path / "etcd.log.3").exists()
    rotate(tmp_path / "nothing.log", limit=1, keep=3)
