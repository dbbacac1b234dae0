"""Starting and ending processes that outlive us.

A process never runs unrecorded: the child waits until its identity is durable before it becomes the program, and gives
up when we die before that. It has its own session, so no terminal and no signal to our group reaches it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from cinderctl.core.diagnostics import CinderError
from cinderctl.core.digest import digest_of
from cinderctl.host.files import ensure_dir, storage_errors
from cinderctl.host.identity import Identity, identity_of, is_alive, read_stat

__all__ = ["Identity", "ProcessError", "end_group", "is_alive", "reap", "send_signal", "spawn", "terminate"]

# Waits for the word on stdin, then becomes the program; end of file (we died, or could not record it) ends it.
_STARTER = """\
IFS= read -r word && [ "$word" = go ] || exit 111
cd -- "$1" || exit 111
[ "$2" = 0 ] || ulimit -S -n "$2"
shift 2
exec "$@" </dev/null
"""
_LOWEST_FD = 10  # ours must not collide with the 0, 1 and 2 they become in the child
_KILL_PATIENCE = 10.0  # seconds for SIGKILL to take effect; longer means a process stuck in the kernel


class ProcessError(CinderError):
    """A process that cannot be started or does not end."""


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    nofile: int | None = None,
    nice: int | None = None,
    record: Callable[[Identity], None] | None = None,
) -> Identity:
    """Start a program in a session of its own, stdin empty, stdout and stderr appended to `log`.

    `env` is its whole environment. `nofile` is the wanted soft limit of open files, at most the hard one. `record`
    makes the identity durable; the program starts only when it returned. Raises: ProcessError, StorageError, and what
    `record` raises.
    """
    program = _find(argv, env)
    if not cwd.is_dir():
        raise ProcessError(f"cannot start {argv[0]}: {cwd} is no directory")
    ensure_dir(log.parent)
    with storage_errors("open the log", log):
        output = _raised(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
    starter = ["sh", "-c", _STARTER, "sh", str(cwd), str(_limit(nofile)), program, *argv[1:]]
    try:
        ours, word = _pipe()
        try:
            pid = _start(starter, env, word=ours, output=output)
        except OSError as error:
            os.close(word)
            raise ProcessError(f"cannot start {argv[0]}: {error.strerror or error}") from error
        finally:
            os.close(ours)
    finally:
        os.close(output)
    try:
        identity = identity_of(pid, digest_of(list(argv)))
        if identity is None:
            raise ProcessError(f"{argv[0]} ended before it began")
        if nice is not None:
            os.setpriority(os.PRIO_PROCESS, pid, nice)
        if record is not None:
            record(identity)
        os.write(word, b"go\n")
    except BaseException as error:
        os.close(word)
        os.waitpid(pid, 0)
        if isinstance(error, OSError):
            raise ProcessError(f"cannot start {argv[0]}: {error.strerror or error}") from error
        raise
    os.close(word)
    return identity


def send_signal(identity: Identity, number: int) -> bool:
    """Signal the process and its group. False when it does not run any more. Raises: ProcessError when not allowed."""
    if not is_alive(identity):
        return False
    stat = read_stat(identity.pid)
    try:
        if stat is not None and stat.group == identity.pid:
            os.killpg(identity.pid, number)
        else:
            os.kill(identity.pid, number)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise ProcessError(f"not allowed to signal process {identity.pid}", hint="it runs as another user") from error
    return True


def end_group(identity: Identity) -> None:
    """Kill what a dead group leader left running. Nothing happens when its pid belongs to another process by now."""
    stat = read_stat(identity.pid)
    if stat is not None and abs(stat.started - identity.started) >= 0.005:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(identity.pid, signal.SIGKILL)


def reap(identity: Identity) -> str:
    """How a process ended, once it has: `exit 1`, `signal 9`, or `exit unknown` when it was not our child."""
    try:
        pid, status = os.waitpid(identity.pid, os.WNOHANG)
    except ChildProcessError:
        return "exit unknown"
    if pid == 0:
        return "exit unknown"
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"exit {code}"


def terminate(identity: Identity, *, grace: float, on_wait: Callable[[], None] | None = None) -> None:
    """End a process and its group: SIGTERM, after `grace` seconds SIGKILL. Absence is success.

    `on_wait` is called about every 50 ms while waiting, and may raise to give up. Raises: ProcessError.
    """
    with _watched(identity) as wait:
        for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, _KILL_PATIENCE)):
            if not send_signal(identity, number):
                break
            deadline = time.monotonic() + patience
            while is_alive(identity) and (left := deadline - time.monotonic()) > 0:
                if on_wait is not None:
                    on_wait()
                wait(min(0.05, left))
        if is_alive(identity):
            raise ProcessError(
                f"process {identity.pid} does not end", detail="It is stuck in the kernel (a dead disk?)"
            )
    end_group(identity)
    reap(identity)


@contextlib.contextmanager
def _watched(identity: Identity) -> Iterator[Callable[[float], None]]:
    """A function that waits some seconds, less when the process ends."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except (OSError, AttributeError):  # gone, or a kernel or system without pidfds
        yield lambda seconds: time.sleep(min(seconds, 0.01))
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)

        def wait(seconds: float) -> None:
            poll.poll(seconds * 1000)

        yield wait
    finally:
        os.close(descriptor)


def _find(argv: Sequence[str], env: Mapping[str, str]) -> str:
    found = shutil.which(argv[0], path=env.get("PATH", os.defpath))
    if found is None:
        raise ProcessError(f"cannot start {argv[0]}: no such program", detail="It is missing or not executable")
    return str(Path(found).absolute())


def _start(starter: list[str], env: Mapping[str, str], *, word: int, output: int) -> int:
    return os.posix_spawn(
        "/bin/sh",
        starter,
        dict(env),
        file_actions=[
            (os.POSIX_SPAWN_DUP2, word, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)],
    )


def _limit(nofile: int | None) -> int:
    if not nofile:
        return 0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return nofile if hard == resource.RLIM_INFINITY else min(nofile, hard)


def _pipe() -> tuple[int, int]:
    read_end, write_end = os.pipe()
    return _raised(read_end), _raised(write_end)


def _raised(descriptor: int) -> int:
    if descriptor >= _LOWEST_FD:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)
    finally:
        os.close(descriptor)
