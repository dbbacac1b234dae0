"""Running a long command whose output is its progress, so that it can be cancelled with all its children."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from cinderctl.binaries.callbacks import CheckCancelled, LineSink, ignore_line
from cinderctl.binaries.errors import BuildError

__all__ = ["run"]

_POLL = 0.2
_GRACE = 5.0
_TAIL = 30


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    on_output: LineSink = ignore_line,
    on_error_line: LineSink = ignore_line,
    check_cancelled: CheckCancelled,
    what: str,
) -> None:
    """Run to the end, handing on each line of stdout and stderr as it comes.

    The command has its own process group, which is ended when `check_cancelled` raises. If we are killed ourselves, the
    command dies when it next writes to its pipes.
    Raises: BuildError with the last lines of stderr; whatever `check_cancelled` raises.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise BuildError(f"cannot start {argv[0]}: {error.strerror or error}") from error
    last: deque[str] = deque(maxlen=_TAIL)

    def keep(line: str) -> None:
        last.append(line)
        on_error_line(line)

    assert process.stdout is not None  # noqa: S101  both are pipes
    assert process.stderr is not None  # noqa: S101
    try:
        with process.stdout as output, process.stderr as errors, selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ, _Lines(on_output))
            selector.register(errors, selectors.EVENT_READ, _Lines(keep))
            while selector.get_map():
                check_cancelled()
                for key, _ in selector.select(_POLL):
                    data = os.read(key.fd, 65536)
                    key.data.feed(data)
                    if not data:
                        selector.unregister(key.fileobj)
        while True:
            try:
                code = process.wait(_POLL)
                break
            except subprocess.TimeoutExpired:
                check_cancelled()
    except BaseException:
        _end(process)
        raise
    if code:
        reason = f"signal {-code}" if code < 0 else f"exit {code}"
        raise BuildError(f"{what} failed ({reason})", detail="\n".join(last))


class _Lines:
    """Cuts a byte stream into lines."""

    def __init__(self, on_line: LineSink) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """An empty `data` is the end: what is left is the last line."""
        *lines, self._rest = (self._rest + data).split(b"\n") if data else [self._rest, b""]
        for line in lines:
            if line.strip():
                self._on_line(line.decode(errors="replace").rstrip())


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        # The leader may be gone while a compiler it started is not.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
