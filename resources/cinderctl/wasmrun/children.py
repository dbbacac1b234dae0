"""Forked children of the zygote that do one thing, answer once through a pipe, and end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from cinderctl.wasmrun import compiler
from cinderctl.wasmrun.compiler import Refused
from cinderctl.wasmrun.confine import become_worker
from cinderctl.wasmrun.loop import Loop

__all__ = ["Compilers", "end_process", "fork_child", "run_in_child"]

# A compiler is bounded in CPU time; this bounds one that waits, for a disk for instance.
_COMPILE_SECONDS = 300.0
_CHUNK = 1 << 16


def end_process(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def run_in_child(work: Callable[[], None]) -> NoReturn:
    """Runs `work` in a process just forked and ends it: the parent's stack above must not run on here."""
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001
        import traceback  # noqa: PLC0415 (the zygote has no use for it)

        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        os._exit(status)


def fork_child(loop: Loop, work: Callable[[int], None], done: Callable[[bytes, int], None]) -> int:
    """Runs `work(pipe)` in a child; `done(answer, wait status)` is called when it has ended. Returns its pid.

    Raises OSError when there can be no child.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if pid == 0:

        def child() -> None:
            become_worker(parent, (writing,))
            work(writing)

        run_in_child(child)
    os.close(writing)
    answer = bytearray()

    def hear(_events: int) -> None:
        data = os.read(reading, _CHUNK)
        if data:
            answer.extend(data)
            return
        loop.unwatch(reading)
        os.close(reading)
        done(bytes(answer), os.waitpid(pid, 0)[1])

    loop.watch(reading, hear)
    return pid


class Compilers:
    """Compiles modules into the cache: each at most once at a time, no more at once than there are CPUs."""

    def __init__(self, loop: Loop, directory: Path, key: str) -> None:
        self._loop, self._directory, self._key = loop, directory, key
        self._asked: dict[str, list[Callable[[Refused | None], None]]] = {}
        self._queue: deque[tuple[str, str]] = deque()
        self._running: set[int] = set()
        self._most = os.cpu_count() or 1

    def compile(self, digest: str, module: str, done: Callable[[Refused | None], None]) -> None:
        """`done` gets None when the code is in the cache."""
        if digest in self._asked:
            self._asked[digest].append(done)
            return
        self._asked[digest] = [done]
        self._queue.append((digest, module))
        self._next()

    def end(self) -> None:
        for pid in self._running:
            end_process(pid)

    def _next(self) -> None:
        while self._queue and len(self._running) < self._most:
            digest, module = self._queue.popleft()
            try:
                self._start(digest, module)
            except OSError as error:
                self._answer(digest, Refused("Unavailable", f"no process to compile in: {error}"))

    def _start(self, digest: str, module: str) -> None:
        def work(pipe: int) -> None:
            refused = None
            try:
                compiler.compile_into(self._directory, self._key, module, digest)
            except Refused as refusal:
                refused = refusal
            except MemoryError:
                refused = Refused("CompileFailed", "compiling the module takes more memory than allowed")
            compiler.write_result(pipe, refused)

        def finished(data: bytes, status: int) -> None:
            self._running.discard(pid)
            try:
                refused = compiler.read_result(data)
            except ValueError:
                refused = Refused("CompileFailed", _why(status))
            self._answer(digest, refused)
            self._next()

        pid = fork_child(self._loop, work, finished)
        self._running.add(pid)
        self._loop.after(_COMPILE_SECONDS, lambda: end_process(pid) if pid in self._running else None)

    def _answer(self, digest: str, refused: Refused | None) -> None:
        for done in self._asked.pop(digest, []):
            done(refused)


def _why(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return f"compiling the module took more than {compiler.CPU_SECONDS} s of CPU time"
        return f"the compiler was ended by signal {number}; the module may need more memory than allowed"
    return f"the compiler ended with status {os.WEXITSTATUS(status)} and no result"
