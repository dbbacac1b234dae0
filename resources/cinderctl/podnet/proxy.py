"""A CONNECT proxy on a Unix socket that dials only what the address table knows.

The reason of a refusal stands in the status line, because that is what kube-apiserver shows to the kubectl user.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from pathlib import Path

from cinderctl.host.files import remove_file
from cinderctl.host.sockets import bind
from cinderctl.podnet.table import AddressTable

__all__ = ["serve"]

_log = logging.getLogger(__name__)

_HEAD_BYTES = 8192  # of a CONNECT request; kube-apiserver's is below 200
_HEAD_SECONDS = 10.0
_DIAL_SECONDS = 10.0  # loopback answers at once, unless a listener's backlog is full
_CHUNK = 64 * 1024  # read at once, and held in memory for each direction at most twice
_BACKLOG = 1024  # a full backlog is an error for the dialler at once, not a wait
_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def serve(path: Path, table: AddressTable) -> None:
    """Accept connections until cancelled; then end them all and take the socket file away. Raises StorageError."""
    listener = bind(path)
    mine = _inode(path)
    tunnels: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a callback of start_unix_server runs in a task
        tunnels.add(task)
        task.add_done_callback(tunnels.discard)
        try:
            await _connection(reader, writer, table)
        except OSError as problem:
            _log.debug("egress connection ended: %s", problem)
        except asyncio.CancelledError:
            if not closing:
                raise
        finally:
            writer.close()

    closing = False
    server = await asyncio.start_unix_server(accept, sock=listener, limit=_CHUNK, backlog=_BACKLOG)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        closing = True
        server.close()
        for tunnel in tunnels:
            tunnel.cancel()
        await asyncio.gather(*tunnels, return_exceptions=True)
        if _inode(path) == mine:  # else a successor listens there already
            remove_file(path)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


class _RefusedError(Exception):
    """What the client is answered: an HTTP status and the reason in words."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


async def _connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, table: AddressTable) -> None:
    try:
        target = await _dial(await _asked(reader), table)
    except _RefusedError as refused:
        await _refuse(writer, refused.status, refused.reason)
        return
    except (asyncio.IncompleteReadError, TimeoutError):
        return  # nobody asked for anything: a probe, or a client that went away
    try:
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.drain()
        await _tunnel((reader, writer), target)
    finally:
        target[1].close()


async def _asked(reader: asyncio.StreamReader) -> tuple[str, int]:
    """Host and port of a CONNECT request (RFC 9110 section 9.3.6)."""
    try:
        async with asyncio.timeout(_HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as problem:
        raise _RefusedError(431, "the request is too large") from problem
    line = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(head) > _HEAD_BYTES:
        raise _RefusedError(431, "the request is too large")
    if len(line) != 3 or not line[2].startswith("HTTP/1."):
        raise _RefusedError(400, "not an HTTP/1 request")
    if line[0] != "CONNECT":
        raise _RefusedError(405, "only CONNECT is served here")
    host, colon, port = line[1].rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise _RefusedError(400, "CONNECT needs host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def _dial(asked: tuple[str, int], table: AddressTable) -> _Stream:
    host, port = asked
    real = table.to_real(host, port)
    if real is None:
        _log.warning("refused to dial %s:%s: not an address of this cluster", host, port)
        raise _RefusedError(403, f"{host}:{port} is not an address of this cluster's pods or nodes")
    try:
        async with asyncio.timeout(_DIAL_SECONDS):
            return await asyncio.open_connection(*real, limit=_CHUNK)
    except TimeoutError as problem:
        _log.info("cannot dial %s:%s (%s:%s): timed out", host, port, *real)
        raise _RefusedError(504, f"{host}:{port} did not accept the connection in {_DIAL_SECONDS:g} s") from problem
    except OSError as problem:
        why = os.strerror(problem.errno).lower() if problem.errno else str(problem)
        _log.info("cannot dial %s:%s (%s:%s): %s", host, port, *real, why)
        raise _RefusedError(502, f"dial {host}:{port}: {why}") from problem


async def _refuse(writer: asyncio.StreamWriter, status: int, reason: str) -> None:
    clean = "".join(character if character.isprintable() else "?" for character in reason)
    body = f"{clean}\n".encode()
    head = (
        f"HTTP/1.1 {status} {clean}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode("latin-1", "replace") + body)
    await writer.drain()


async def _tunnel(client: _Stream, target: _Stream) -> None:
    """Carry bytes both ways until both sides have said all, or one of them is gone."""
    up = asyncio.create_task(_pump(client[0], target[1]))
    down = asyncio.create_task(_pump(target[0], client[1]))
    try:
        done, _ = await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        whole = all(task.exception() is None for task in done)
        if whole and not (up in done and _is_gone(client[1])):
            await asyncio.wait((up, down))
    finally:
        up.cancel()
        down.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Until the end of `source`, which `sink` is told of while it may go on talking. Raises OSError when either
    breaks.
    """
    while data := await source.read(_CHUNK):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


def _is_gone(writer: asyncio.StreamWriter) -> bool:
    """Whether the peer of a Unix socket closed it, which reads like a half-close but will never take another byte.

    Without the difference, a log stream nobody follows any more would stay open until its next line.
    """
    peer: socket.socket | None = writer.get_extra_info("socket")
    if peer is None or peer.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(peer.fileno(), select.POLLHUP)
    return any(events & select.POLLHUP for _, events in poll.poll(0))
