"""One unit of work as a kind sees it: its record, its deadline, waiting, progress, and being told to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Any, TypeVar

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import DeadlineError, Diagnostic, InterruptedRunError, TransientError
from cinderctl.core.record import Record
from cinderctl.engine.events import Event, Phase, StepProgress

__all__ = ["Interrupt", "RunningStep", "interrupt_on_signals"]

T = TypeVar("T")

_LOG_LIMIT = 64 * 1024  # characters kept: the end of a command's output is what explains its failure
_PROGRESS_INTERVAL = 0.1  # seconds; nobody reads faster, and a download reports every block


class Interrupt:
    """The user's wish to stop. Asked once: no new steps, running ones are told. Asked twice: at once.

    `request` may be called from a signal handler: it takes no lock that the interrupted code could hold.
    """

    def __init__(self) -> None:
        self._count = 0
        self._listeners: list[SimpleQueue[Any]] = []

    def request(self) -> None:
        self._count += 1
        for listener in self._listeners:
            listener.put(self)

    @property
    def requested(self) -> bool:
        return self._count > 0

    @property
    def immediate(self) -> bool:
        return self._count > 1

    def listen(self, queue: SimpleQueue[Any]) -> None:
        """Put this object into `queue` at each request."""
        self._listeners.append(queue)


@contextmanager
def interrupt_on_signals(interrupt: Interrupt) -> Iterator[None]:
    """SIGINT and SIGTERM become requests while the block runs. Main thread only."""

    def handle(_signal: int, _frame: FrameType | None) -> None:
        interrupt.request()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class RunningStep:
    """The engine's `Step`. `deadline` in seconds from now; `emit` is called from the step's own thread."""

    def __init__(
        self,
        address: Address,
        phase: Phase,
        record: Record,
        *,
        deadline: float,
        emit: Callable[[Event], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._address, self._phase, self._record = address, phase, record
        self._allowed = deadline
        self._deadline = time.monotonic() + deadline
        self._emit, self._now = emit, now
        self._stop = threading.Event()
        self._log: list[str] = []
        self._last_progress = float("-inf")
        self._last_message = ""

    @property
    def record(self) -> Record:
        return self._record

    @property
    def logged(self) -> str:
        return "".join(self._log)[-_LOG_LIMIT:]

    @property
    def remaining(self) -> float:
        """Seconds to the deadline."""
        return self._deadline - time.monotonic()

    def cancel(self) -> None:
        """Ask the step to end: its next check or wait raises."""
        self._stop.set()

    def wait_until(
        self, condition: Callable[[], T | None], what: str, *, timeout: float | None = None, interval: float = 0.05
    ) -> T:
        allowed = self.remaining if timeout is None else min(timeout, self.remaining)
        end = time.monotonic() + allowed
        self.progress(f"waiting until {what}")
        last: TransientError | None = None
        while True:
            self.check_cancelled()
            try:
                found = condition()
                if found:
                    return found
            except TransientError as error:
                last = error
            left = end - time.monotonic()
            if left <= 0:
                raise self._too_late(what, self._allowed if timeout is None else allowed, last) from last
            self._stop.wait(min(interval, left))

    def pause(self, seconds: float) -> None:
        """Raises: InterruptedRunError when the user stops the run meanwhile."""
        self._stop.wait(max(0.0, seconds))
        self.check_cancelled()

    def progress(self, message: str, *, done: int | None = None, total: int | None = None) -> None:
        clock = time.monotonic()
        finished = done is not None and done == total
        if message == self._last_message and clock - self._last_progress < _PROGRESS_INTERVAL and not finished:
            return
        self._last_progress, self._last_message = clock, message
        self._emit(StepProgress(self._now(), self._address, self._phase, message, done, total))

    def log(self, text: str) -> None:
        self._log.append(text)
        if sum(map(len, self._log)) > 2 * _LOG_LIMIT:
            self._log = [self.logged]

    def check_cancelled(self) -> None:
        if self._stop.is_set():
            summary = f"{self._address} was interrupted"
            raise InterruptedRunError(Diagnostic(summary, hint="run the command again", address=self._address))

    def _too_late(self, what: str, allowed: float, last: TransientError | None) -> DeadlineError:
        detail = f"Last: {last}" if last is not None else ""
        summary = f"{self._address}: not in {allowed:.3g} s: {what}"
        return DeadlineError(Diagnostic(summary, detail, address=self._address))
