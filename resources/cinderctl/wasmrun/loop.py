"""A small event loop: descriptors and timers, nothing that must be imported.

asyncio would triple the zygote's memory, and an event loop of its cannot be forked cleanly.
"""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable

__all__ = ["Loop"]


class Loop:
    """`stop()` ends `run()` after the current handler."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._stopped = False

    def watch(self, fd: int, handler: Callable[[int], None]) -> None:
        """`handler(events)` is called with epoll's event bits when `fd` can be read or has ended."""
        self._handlers[fd] = handler
        self._poll.register(fd, select.EPOLLIN)

    def want_write(self, fd: int, wanted: bool) -> None:
        self._poll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def unwatch(self, fd: int) -> None:
        """Before `fd` is closed."""
        del self._handlers[fd]
        self._poll.unregister(fd)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._count, action))

    def stop(self) -> None:
        self._stopped = True

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Until `stop()`, or `until()` holds."""
        while not self._stopped and not until():
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for fd, events in self._poll.poll(wait):
                handler = self._handlers.get(fd)  # gone when an earlier one of this round took it away
                if handler is not None:
                    handler(events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
