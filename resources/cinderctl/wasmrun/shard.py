"""A shard: the process that runs guests, one thread each.

Forked by the zygote, it keeps no descriptor of its parent's but the one it is spoken to by and the runtime's lock, dies
with its parent, may gain no privileges, dumps no core, and is the first to go when the machine runs out of memory. Its
main thread takes orders and moves guests' output from pipes to logs; it ends when the zygote closes the channel.

Orders: {"op": "run", "spec", "load": bool (a descriptor of the compiled code comes with it)}, {"op": "stop", "id"}.
Reports: {"started": state}, {"ended": state, "durable": bool}, {"full": id, "why"}, {"unloadable": id, "why"}.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import queue
import select
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cinderctl.wasmrun import outcome
from cinderctl.wasmrun.channel import Channel
from cinderctl.wasmrun.guest import Guest, execute
from cinderctl.wasmrun.logfile import Bucket
from cinderctl.wasmrun.protocol import RunState, spec_from_json, to_json
from cinderctl.wasmrun.sandbox import THREAD_STACK, ModuleError, Sandbox
from cinderctl.wasmrun.wasi import deadline_callback, stderr_callback

__all__ = ["serve"]

# A guest that still runs after this many seconds is no start-up any more: from then on it yields to everybody else.
_RENICE_AFTER = 0.2
_NICE = 10
# A guest's stdout: what it may write at length, and at once. Beyond, its pipe is left full, and it waits.
_LOG_RATE, _LOG_BURST = 32 << 20, 64 << 20
# Threads kept for the next guests.
_IDLE_THREADS = 4


def serve(channel: Channel, runs: Path) -> None:
    """Runs guests until the channel ends. `runs` is where outcomes are recorded."""
    threading.stack_size(THREAD_STACK)
    _Shard(channel, runs).serve()


class _Workers:
    """Threads that are used again: starting one costs more than a short guest."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], bool]] = queue.SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], bool]) -> None:
        """Runs `work` at once, on a thread of its own; its result says whether the thread may be used again.

        Raises RuntimeError when there can be no further thread.
        """
        with self._lock:
            waiting = self._idle > 0
            self._idle -= waiting
        if waiting:
            self._work.put(work)
        else:
            threading.Thread(target=self._serve, args=(work,), daemon=True).start()

    def _serve(self, work: Callable[[], bool]) -> None:
        while work():
            with self._lock:
                if self._idle >= _IDLE_THREADS:
                    return
                self._idle += 1
            work = self._work.get()


class _Shard:
    def __init__(self, channel: Channel, runs: Path) -> None:
        self._channel = channel
        self._runs = runs
        self._sandbox = Sandbox()
        self._callbacks = (deadline_callback(), stderr_callback(self._take_stderr))
        self._workers = _Workers()
        self._guests: dict[str, Guest] = {}
        self._numbers: dict[int, Guest] = {}
        self._buckets: dict[int, tuple[Guest, Bucket]] = {}  # by stdout pipe
        self._last = 0
        self._poll = select.epoll()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []  # touched by the main thread only

    def serve(self) -> None:
        orders = self._channel.fileno()
        self._poll.register(orders, select.EPOLLIN)
        while True:
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for fd, _ in self._poll.poll(wait):
                if fd != orders:
                    self._move_output(fd)
                    continue
                messages = self._channel.receive()
                if messages is None:
                    return
                for message in messages:
                    self._obey(message)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    def _obey(self, message: dict[str, Any]) -> None:
        if message["op"] == "stop":
            guest = self._guests.get(message["id"])
            if guest is not None:
                guest.interruption.ask()
                self._sandbox.interrupt()
                # It may wait for room in a pipe that is not being emptied for its log's sake.
                self._resume_output(guest)
            return
        spec = spec_from_json(message["spec"])
        self._last += 1
        guest = Guest(spec, RunState(spec.id, "running", shard=os.getpid()), self._last)
        if message["load"]:
            fd = self._channel.fds.popleft()
            try:
                self._sandbox.load(spec.digest, f"/proc/self/fd/{fd}")
            except ModuleError as error:
                self._channel.send_now({"unloadable": spec.id, "why": str(error)})
                return
            finally:
                os.close(fd)
        self._guests[spec.id] = self._numbers[guest.number] = guest
        try:
            self._workers.submit(lambda: self._run(guest))
        except RuntimeError as error:
            self._give_back(guest, error)
            return
        self._after(_RENICE_AFTER, lambda: self._renice(guest))

    def _run(self, guest: Guest) -> bool:
        """The whole life of a guest, on its thread; False when the thread is not to be used again."""
        guest.tid = threading.get_native_id()
        try:
            ended = execute(
                guest,
                self._sandbox,
                self._callbacks,
                watch=self._watch,
                unwatch=self._unwatch,
                started=lambda: self._started(guest),
            )
        except (OSError, MemoryError) as error:
            self._give_back(guest, error)
            return True
        except Exception as error:  # noqa: BLE001 (a run whose thread is gone would never end)
            ended = outcome.failed(guest.state, f"the runtime failed: {error!r}", time.time())
        durable = True
        try:
            outcome.record(self._runs, ended, durable=True)
        except OSError:
            durable = False  # out of descriptors, perhaps: the zygote has its own
        self._drop(guest)
        self._channel.send_now({"ended": to_json(ended), "durable": durable})
        return not guest.niced

    def _started(self, guest: Guest) -> None:
        guest.state = replace(guest.state, started_at=time.time())
        self._channel.send_now({"started": to_json(guest.state)})

    def _give_back(self, guest: Guest, error: BaseException) -> None:
        """This shard cannot start it: no descriptor, no thread, no memory. Another may."""
        self._drop(guest)
        self._channel.send_now({"full": guest.spec.id, "why": str(error)})

    def _drop(self, guest: Guest) -> None:
        self._guests.pop(guest.spec.id, None)
        self._numbers.pop(guest.number, None)

    # -- output

    def _watch(self, guest: Guest) -> None:
        self._buckets[guest.pipe] = (guest, Bucket(_LOG_RATE, _LOG_BURST, time.monotonic()))
        self._poll.register(guest.pipe, select.EPOLLIN)

    def _unwatch(self, guest: Guest) -> None:
        with contextlib.suppress(OSError):  # a pipe that ended or waits is not registered
            self._poll.unregister(guest.pipe)
        self._buckets.pop(guest.pipe, None)

    def _move_output(self, fd: int) -> None:
        found = self._buckets.get(fd)
        if found is None:
            return
        guest, bucket = found
        count = guest.take_stdout()
        wait = bucket.take(count, time.monotonic()) if count > 0 else 0.0
        if count < 0 or (wait > 0 and not guest.interruption.asked):
            with contextlib.suppress(OSError):
                self._poll.unregister(fd)
        if wait > 0:
            self._after(wait, lambda: self._resume_output(guest))

    def _resume_output(self, guest: Guest) -> None:
        found = self._buckets.get(guest.pipe)
        if found is not None and found[0] is guest:
            with contextlib.suppress(OSError):  # registered all the time, or ended meanwhile
                self._poll.register(guest.pipe, select.EPOLLIN)

    def _take_stderr(self, number: int, data: bytes) -> None:
        guest = self._numbers.get(number)
        if guest is not None:
            guest.take_stderr(data)

    # -- time

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._last += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._last, action))

    def _renice(self, guest: Guest) -> None:
        if self._guests.get(guest.spec.id) is guest and guest.tid:
            # Niceness cannot be taken back without privileges, so the thread ends with its guest.
            guest.niced = True
            with contextlib.suppress(OSError):  # ended just now
                os.setpriority(os.PRIO_PROCESS, guest.tid, _NICE)
