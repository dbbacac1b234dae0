"""The API server's way to pods and nodes, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cinderctl.pki import Subject, issue, new_private_key, self_signed_ca
from cinderctl.podnet import proxy
from cinderctl.podnet.egress import egress_selector_config, serve_egress, table_from

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
VIRTUAL = "10.244.77.1"
REAL = "127.244.77.1"


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await work

    asyncio.run(bounded())


@contextlib.asynccontextmanager
async def egress(root: Path, **config: Any) -> AsyncGenerator[Path]:
    task = asyncio.create_task(
        serve_egress({"socket": "egress.sock", "podCidr": "10.244.0.0/16", "block": 244, **config}, root)
    )
    path = root / "egress.sock"
    while not path.exists() and not task.done():  # noqa: ASYNC110 - the file system tells no one
        await asyncio.sleep(0.001)
    try:
        yield path
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def listening(handler: Handler) -> AsyncGenerator[int]:
    async def close_after(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(close_after, REAL, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers only when the other side has said all: works through a right half-close alone."""
    writer.write(b"echo:" + await reader.read())
    await writer.drain()


async def connect(path: Path, target: str) -> tuple[str, Stream]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    return head.split(b"\r\n")[0].decode(), (reader, writer)


def test_bytes_go_both_ways_and_a_half_close_is_passed_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with egress(tmp_path) as path, listening(echo) as port:
            status, (reader, writer) = await connect(path, f"{VIRTUAL}:{port}")
            assert status == "HTTP/1.1 200 Connection established"
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"echo:hello"
            writer.close()

    run(work())


def test_a_target_that_has_said_all_still_hears_the_client(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def work() -> None:
        done = asyncio.Event()

        async def talks_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"bye")
            writer.write_eof()
            heard.append(await reader.read())
            done.set()

        async with egress(tmp_path) as path, listening(talks_first) as port:
            _, (reader, writer) = await connect(path, f"{VIRTUAL}:{port}")
            assert await reader.read() == b"bye"
            writer.write(b"late")
            writer.write_eof()
            await done.wait()
            writer.close()

    run(work())
    assert heard == [b"late"]


def test_what_is_sent_right_behind_the_request_arrives(tmp_path: Path) -> None:
    async def work() -> None:
        async with egress(tmp_path) as path, listening(echo) as port:
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(f"CONNECT {VIRTUAL}:{port} HTTP/1.1\r\n\r\nearly".encode())
            writer.write_eof()
            assert (await reader.read()).endswith(b"\r\n\r\necho:early")
            writer.close()

    run(work())


def test_much_data_arrives_whole_in_both_directions_at_once(tmp_path: Path) -> None:
    size = 4_000_000

    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(50_000):
            writer.write(data)
            await writer.drain()

    async def work() -> None:
        async with egress(tmp_path) as path, listening(mirror) as port:
            _, (reader, writer) = await connect(path, f"{VIRTUAL}:{port}")

            async def send() -> None:
                for number in range(40):
                    writer.write(bytes([number]) * (size // 40))
                    await writer.drain()
                writer.write_eof()

            sender = asyncio.create_task(send())
            received = await reader.read(-1)
            await sender
            assert received == b"".join(bytes([n]) * (size // 40) for n in range(40))
            writer.close()

    run(work())


def test_a_slow_reader_holds_the_sender_back(tmp_path: Path) -> None:
    async def work() -> None:
        sent = 0
        stuck = asyncio.Event()

        async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"x" * 100_000)
                    sent += 100_000
                    try:
                        async with asyncio.timeout(0.2):
                            await writer.drain()
                    except TimeoutError:
                        stuck.set()
                        await writer.drain()

        async with egress(tmp_path) as path, listening(pour) as port:
            _, (_, writer) = await connect(path, f"{VIRTUAL}:{port}")
            await stuck.wait()
            assert sent < 20_000_000
            writer.close()

    run(work())


def test_a_client_that_is_gone_ends_the_connection_to_an_idle_target(tmp_path: Path) -> None:
    """Nobody follows the logs any more: the kubelet must hear of it before the next line."""

    async def work() -> None:
        asked, gone = asyncio.Event(), asyncio.Event()

        async def follow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read(1)
            asked.set()
            assert await reader.read() == b""
            gone.set()

        async with egress(tmp_path) as path, listening(follow) as port:
            _, (_, writer) = await connect(path, f"{VIRTUAL}:{port}")
            writer.write(b"x")
            await asked.wait()
            tunnels = len(asyncio.all_tasks())
            writer.close()
            await gone.wait()
            while len(asyncio.all_tasks()) > tunnels - 3:  # noqa: ASYNC110 - the proxy's own tasks end
                await asyncio.sleep(0.001)

    run(work())


def test_a_target_that_resets_ends_the_tunnel(tmp_path: Path) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    async def work() -> None:
        async with egress(tmp_path) as path, listening(reset) as port:
            _, (reader, writer) = await connect(path, f"{VIRTUAL}:{port}")
            writer.write(b"x")
            assert await reader.read() == b""
            writer.close()

    run(work())


def test_tls_goes_through_untouched(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ca_key, key = new_private_key(), new_private_key()
    ca = self_signed_ca(ca_key, "ca", not_before=now - timedelta(hours=1), days=1)
    subject = Subject("node", ip_addresses=(VIRTUAL,))
    certificate = issue(
        ca, ca_key, key, subject, server=True, client=False, not_before=now - timedelta(hours=1), days=1
    )
    (tmp_path / "tls.pem").write_bytes(key + certificate)
    (tmp_path / "ca.crt").write_bytes(ca)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello " + await reader.readline())
        await writer.drain()
        writer.close()

    async def work() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "tls.pem")
        server = await asyncio.start_server(greet, REAL, 0, ssl=context)
        async with egress(tmp_path) as path, server:
            port = server.sockets[0].getsockname()[1]
            _, (reader, writer) = await connect(path, f"{VIRTUAL}:{port}")
            await writer.start_tls(ssl.create_default_context(cafile=tmp_path / "ca.crt"), server_hostname=VIRTUAL)
            writer.write(b"node\n")
            assert await reader.readline() == b"hello node\n"
            writer.close()
            await writer.wait_closed()

    run(work())


@pytest.mark.parametrize(
    ("request_line", "status", "words"),
    [
        ("CONNECT 10.96.0.1:443 HTTP/1.1", 403, "10.96.0.1:443 is not an address of this cluster's pods or nodes"),
        ("CONNECT 127.0.0.1:22 HTTP/1.1", 403, "not an address"),
        ("CONNECT [::1]:22 HTTP/1.1", 403, "::1:22 is not an address"),
        ("CONNECT localhost:22 HTTP/1.1", 403, "not an address"),
        ("CONNECT 10.244.77.1:0 HTTP/1.1", 403, "not an address"),
        ("GET / HTTP/1.1", 405, "only CONNECT"),
        ("CONNECT nowhere HTTP/1.1", 400, "host:port"),
        ("hello", 400, "not an HTTP/1 request"),
        (f"CONNECT {'x' * 9000}:1 HTTP/1.1", 431, "too large"),
    ],
)
def test_refusals_say_why_in_the_status_line(tmp_path: Path, request_line: str, status: int, words: str) -> None:
    async def work() -> None:
        async with egress(tmp_path) as path:
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(f"{request_line}\r\n\r\n".encode())
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            answer = (await reader.readline()).decode()
            assert answer.startswith(f"HTTP/1.1 {status} ")
            assert words in answer
            writer.close()

    run(work())


def test_a_refused_target_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with egress(tmp_path) as path:
            _, (_, writer) = await connect(path, "192.168.1.1:22")
            writer.close()

    run(work())
    assert "refused to dial 192.168.1.1:22" in caplog.text


def test_a_target_that_does_not_listen_is_a_bad_gateway(tmp_path: Path) -> None:
    async def work() -> None:
        with socket.create_server((REAL, 0)) as free:
            port = free.getsockname()[1]
        async with egress(tmp_path) as path:
            status, (_, writer) = await connect(path, f"{VIRTUAL}:{port}")
            assert status == f"HTTP/1.1 502 dial {VIRTUAL}:{port}: connection refused"
            writer.close()

    run(work())


def test_a_silent_client_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "_HEAD_SECONDS", 0.05)

    async def work() -> None:
        async with egress(tmp_path) as path:
            reader, writer = await asyncio.open_unix_connection(str(path))
            assert await reader.read() == b""
            writer.close()

    run(work())


def test_entries_lead_to_other_ports(tmp_path: Path) -> None:
    async def work() -> None:
        async with listening(echo) as port:
            entries = {"10.244.255.1:3000": f"{REAL}:{port}"}
            async with egress(tmp_path, entries=entries) as path:
                status, (reader, writer) = await connect(path, "10.244.255.1:3000")
                assert "200" in status
                writer.write_eof()
                assert await reader.read() == b"echo:"
                writer.close()

    run(work())


def test_the_socket_is_the_users_alone_and_goes_with_the_proxy(tmp_path: Path) -> None:
    async def work() -> None:
        (tmp_path / "egress.sock").touch()  # what a killed predecessor left
        async with egress(tmp_path) as path:
            while not path.is_socket():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert path.stat().st_mode & 0o777 == 0o600
        assert not path.exists()

    run(work())


def test_a_successor_keeps_its_socket_when_the_predecessor_ends(tmp_path: Path) -> None:
    async def work() -> None:
        async with egress(tmp_path) as path:
            old = path.stat().st_ino
            successor = asyncio.create_task(proxy.serve(path, table_from({"podCidr": "10.244.0.0/16", "block": 244})))
            while not path.exists() or path.stat().st_ino == old:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert path.exists()
        status, (_, writer) = await connect(path, "1.2.3.4:1")
        assert "403" in status
        writer.close()
        successor.cancel()
        await asyncio.gather(successor, return_exceptions=True)

    run(work())


def test_ending_the_proxy_ends_its_tunnels(tmp_path: Path) -> None:
    async def work() -> None:
        async with listening(echo) as port:
            async with egress(tmp_path) as path:
                _, (reader, writer) = await connect(path, f"{VIRTUAL}:{port}")
            assert await reader.read() == b""
            writer.close()

    run(work())


def test_the_selector_names_the_group_the_api_server_accepts() -> None:
    config = egress_selector_config("/run/egress.sock")
    assert config["apiVersion"] == "apiserver.k8s.io/v1beta1"
    (selection,) = config["egressSelections"]
    assert selection["name"] == "cluster"
    assert selection["connection"]["proxyProtocol"] == "HTTPConnect"
    assert selection["connection"]["transport"] == {"uds": {"udsName": "/run/egress.sock"}}


def test_a_plan_pays_nothing_for_the_proxy() -> None:
    code = "import sys, cinderctl.podnet.egress; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
