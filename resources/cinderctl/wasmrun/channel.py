"""Frames and file descriptors between two processes over a stream socket.

The zygote must never block on a peer: it queues with `send` and writes on with `flush` when the socket is ready. A
shard's threads use `send_now`, which blocks (the zygote always reads) and may be called from several threads.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cinderctl.wasmrun.protocol import FrameReader, encode_frame

__all__ = ["Channel", "socket_name"]

_CHUNK = 1 << 16
_MAX_FDS = 8
# sun_path takes 108 bytes with its end.
_MAX_SOCKET_NAME = 107


@contextmanager
def socket_name(path: Path) -> Iterator[str]:
    """A name for bind or connect: `path` itself, or a way round its length. Raises OSError."""
    if len(os.fsencode(path)) <= _MAX_SOCKET_NAME:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Channel:
    """One end. `fds` are the descriptors received and not yet taken, in the order they were sent."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = FrameReader()
        self._out: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._lock = threading.Lock()
        self.fds: deque[int] = deque()
        self.queued = 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()
        for _, fds in self._out:
            _close_all(fds)
        self._out.clear()

    def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Queues; the descriptors are duplicated, so the caller may close its own. Call `flush` afterwards."""
        frame = memoryview(encode_frame(message))
        self._out.append((frame, tuple(os.dup(fd) for fd in fds)))
        self.queued += len(frame)

    def flush(self) -> bool:
        """Writes what the socket takes now; True when nothing is left. Raises OSError when the peer is gone."""
        while self._out:
            frame, fds = self._out[0]
            try:
                if fds:
                    sent = socket.send_fds(self._sock, [frame], fds, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                else:
                    sent = self._sock.send(frame, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return False
            self.queued -= sent
            _close_all(fds)
            if sent < len(frame):
                self._out[0] = (frame[sent:], ())
            else:
                self._out.popleft()
        return True

    def send_now(self, message: Mapping[str, Any]) -> None:
        """Blocks until it is written. Raises OSError when the peer is gone."""
        frame = encode_frame(message)
        with self._lock:
            self._sock.sendall(frame, socket.MSG_NOSIGNAL)

    def receive(self) -> list[dict[str, Any]] | None:
        """The messages that are complete by now; None when the peer is gone. Raises BadFrameError."""
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, _CHUNK, _MAX_FDS, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            return None
        self.fds.extend(fds)
        return self._frames.feed(data) if data else None


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
