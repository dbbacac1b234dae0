"""The supervisor from outside: define components, ask how they are, start and stop it all.

Works with a dead supervisor too: definitions and last states are files, and processes are known by their identity.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from cinderctl.core.diagnostics import CinderError, DeadlineError, TransientError
from cinderctl.host.components import (
    PROTOCOL,
    Component,
    ComponentStatus,
    Probe,
    check_components,
    delete_component,
    delete_status,
    load_components,
    load_status,
    mark_of,
    save_component,
    save_status,
    status_names,
    stop_order,
)
from cinderctl.host.dirs import ClusterDir
from cinderctl.host.files import CorruptFileError, ensure_dir, read_json, storage_errors, tail
from cinderctl.host.identity import Identity, find_marked, identity_of, is_alive
from cinderctl.host.process import send_signal, spawn, terminate
from cinderctl.host.sockets import connect

__all__ = [
    "Component",
    "ComponentStatus",
    "Probe",
    "Wait",
    "acknowledge",
    "ensure_supervisor",
    "poll_until",
    "put_components",
    "read_components",
    "read_status",
    "remove_components",
    "restart_component",
    "stop_supervisor",
    "supervisor_alive",
]

_ANSWER_TIMEOUT = 5.0
_START_TIMEOUT = 20.0
_STOP_TIMEOUT = 60.0

T = TypeVar("T")


class Wait(Protocol):
    """Calls a condition until it returns something true; `engine.kinds.Step.wait_until` is one."""

    def __call__(
        self, condition: Callable[[], T | None], what: str, *, timeout: float | None = None, interval: float = 0.05
    ) -> T: ...


class _NoAnswer(Exception):  # noqa: N818  # never leaves this module
    """No supervisor, or one that does not speak."""


def poll_until(
    condition: Callable[[], T | None], what: str, *, timeout: float | None = None, interval: float = 0.05
) -> T:
    """The `Wait` for where no engine is at hand. `timeout` in seconds, none for ever. Raises: DeadlineError."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while not (result := condition()):
        if deadline is not None and time.monotonic() > deadline:
            raise DeadlineError(f"waited {timeout:g} s for {what}")
        time.sleep(interval)
    return result


def read_components(directory: ClusterDir) -> dict[str, Component]:
    """What is defined. A damaged definition counts as none, so that the next apply writes it anew. Raises:
    StorageError."""
    return load_components(directory)[0]


def read_status(directory: ClusterDir) -> dict[str, ComponentStatus]:
    """How every defined component is, and whatever else still runs. Raises: StorageError."""
    try:
        answer = _ask(directory, {"op": "status"})["components"]
    except _NoAnswer:
        return _status_of_files(directory)
    return {name: ComponentStatus.from_json(value) for name, value in answer.items()}


def supervisor_alive(directory: ClusterDir) -> bool:
    """Whether one runs, be it answering or not."""
    identity = _supervisor(directory)
    return identity is not None and is_alive(identity)


def ensure_supervisor(
    directory: ClusterDir, command: Sequence[str], env: Mapping[str, str], wait: Wait = poll_until
) -> None:
    """Start `command` (detached; its output goes to `logs/supervisor.log`) unless a supervisor runs. Two runs at once
    start one. It starts everything that is defined. Raises: CinderError with the end of the log, DeadlineError."""
    if _hello(directory) == "ready":
        return
    with _starting(directory, wait):
        state = wait(lambda: _settled(directory), "the supervisor to answer", timeout=_START_TIMEOUT, interval=0.01)
        if state == "ready":
            return
        if state == "outdated" and (old := _supervisor(directory)) is not None:
            terminate(old, grace=_STOP_TIMEOUT)  # it leaves the components alone
        log = directory.log("supervisor")
        started = spawn(command, env=env, cwd=directory.root, log=log)

        def answers() -> bool | None:
            # First the process, then the socket: it may have given way to another one that was started by hand.
            alive = is_alive(started)
            if _hello(directory) == "ready":
                return True
            if not alive:
                raise CinderError(
                    "the supervisor does not start", detail="\n".join(tail(log)), hint=f"its log is {log}"
                )
            return None

        wait(answers, "the supervisor to start", timeout=_START_TIMEOUT, interval=0.01)


def put_components(directory: ClusterDir, components: Sequence[Component]) -> None:
    """Define components, or define them anew; others stay. The supervisor, if one runs, starts them now: a changed one
    is restarted, an unchanged one left alone unless it waits to be tried again.

    Raises: CinderError, StorageError, TransientError while the supervisor is being stopped.
    """
    known = read_components(directory)
    check_components({**known, **{component.name: component for component in components}}.values())
    for component in components:
        if component.name not in known or known[component.name].digest != component.digest:
            save_component(directory, component)
    with contextlib.suppress(_NoAnswer):
        answer = _ask(directory, {"op": "reconcile", "retry": [component.name for component in components]})
        if answer.get("closing"):
            raise TransientError(f"the supervisor of {directory.root} is being stopped by another run")


def remove_components(
    directory: ClusterDir, names: Iterable[str], *, grace: float | None = None, wait: Wait = poll_until
) -> None:
    """Stop components, each before those it was started after, and forget them; returns when they are gone. Absence is
    success. `grace`: seconds until they are killed, instead of their own. Raises: DeadlineError, StorageError."""
    gone = set(names)
    if not directory.root.is_dir():
        return
    defined = read_components(directory)
    patience = _STOP_TIMEOUT + sum(defined[name].stop_grace for name in gone & defined.keys())
    for name in gone:
        delete_component(directory, name)

    def stopped() -> bool | None:
        try:
            if not asked and not _ask(directory, {"op": "reconcile", "grace": grace}).get("closing"):
                asked.append(True)
            left = _ask(directory, {"op": "status"})["components"].keys() & gone
        except _NoAnswer:
            with _starting(directory, wait):
                if supervisor_alive(directory):
                    return None  # it is ending, or one was started meanwhile
                _end_leftovers(directory, defined, gone, grace)
            for name in gone:
                delete_status(directory, name)
            return True
        return None if left else True

    asked: list[bool] = []
    wait(stopped, f"{', '.join(sorted(gone))} to stop", timeout=patience, interval=0.01)


def restart_component(directory: ClusterDir, name: str) -> None:
    """Returns when its state is "starting" at least. Raises: CinderError when no supervisor runs or it is unknown."""
    try:
        _ask(directory, {"op": "restart", "name": name})
    except _NoAnswer as error:
        raise CinderError(f"cannot restart {name}: no supervisor runs", hint="`cinderctl start` starts it") from error


def acknowledge(directory: ClusterDir, name: str) -> None:
    """Count unexpected exits from 0 again. Raises: CinderError for an unknown component."""
    try:
        _ask(directory, {"op": "acknowledge", "name": name})
    except _NoAnswer:
        with contextlib.suppress(CorruptFileError):  # made anew, with 0, by the next supervisor
            status = load_status(directory, name)
            if status is not None and status.unexpected_exits:
                save_status(directory, replace(status, unexpected_exits=0))


def stop_supervisor(
    directory: ClusterDir,
    *,
    stop_components: bool,
    only_unused: bool = False,
    grace: float | None = None,
    wait: Wait = poll_until,
) -> None:
    """End the supervisor and, if told so, all components before it; their definitions stay. Absence is success.

    One that does not answer is killed. `only_unused`: leave it when components are defined (somebody else's). `grace`
    as for `remove_components`. Raises: DeadlineError, ProcessError.
    """
    if not directory.root.is_dir():
        return
    defined = read_components(directory)
    patience = _STOP_TIMEOUT + sum(component.stop_grace for component in defined.values())
    with _starting(directory, wait):
        identity = _supervisor(directory)
        if identity is not None:
            try:
                request = {"op": "shutdown", "stop": stop_components, "unused": only_unused, "grace": grace}
                if _ask(directory, request).get("stays"):
                    return
                wait(lambda: not is_alive(identity) or None, "the supervisor to end", timeout=patience, interval=0.01)
            except _NoAnswer:
                if is_alive(identity):
                    send_signal(identity, signal.SIGCONT)
                terminate(identity, grace=2.0)
        if stop_components and not (only_unused and defined):
            names = _end_leftovers(directory, defined, None, grace)
            for name in names:
                save_status(directory, (_readable_status(directory, name) or ComponentStatus(name)).gone())


def _end_leftovers(
    directory: ClusterDir, defined: Mapping[str, Component], only: set[str] | None, grace: float | None
) -> list[str]:
    """End processes nobody supervises (all, or those named), in order; returns which had to be."""
    living = {
        name: status.identity for name in status_names(directory) if (status := _readable_status(directory, name))
    }
    found = {name: identity for name, identity in living.items() if identity is not None and is_alive(identity)}
    found = {**find_marked(mark_of(directory)), **found}
    order = stop_order(defined, found if only is None else found.keys() & only)
    for name in order:
        own = defined[name].stop_grace if name in defined else 10.0
        terminate(found[name], grace=own if grace is None else grace)
    return order


def _status_of_files(directory: ClusterDir) -> dict[str, ComponentStatus]:
    names = status_names(directory) | read_components(directory).keys()
    statuses: dict[str, ComponentStatus] = {}
    damaged: list[str] = []
    for name in sorted(names):
        status = _readable_status(directory, name)
        if status is None:
            damaged.append(name)
            statuses[name] = ComponentStatus(name)
        else:
            alive = status.identity is not None and is_alive(status.identity)
            statuses[name] = status if alive else status.found_dead()
    if damaged:
        for name, identity in find_marked(mark_of(directory)).items():
            if name in damaged:
                statuses[name] = replace(statuses[name], state="running", identity=identity)
    return statuses


def _readable_status(directory: ClusterDir, name: str) -> ComponentStatus | None:
    try:
        return load_status(directory, name)
    except CorruptFileError:
        return None


def _supervisor(directory: ClusterDir) -> Identity | None:
    try:
        value = read_json(directory.run / "supervisor.json")
        return _holder(directory) if value is None else Identity.from_json(value["identity"])
    except (CorruptFileError, ValueError, KeyError, TypeError):
        return _holder(directory)


def _holder(directory: ClusterDir) -> Identity | None:
    """With its record lost, the supervisor still says who it is."""
    try:
        return identity_of(int(_ask(directory, {"op": "hello"})["pid"]), "")
    except _NoAnswer:
        return None


def _hello(directory: ClusterDir) -> str:
    """ "ready", "closing" (it is ending), "outdated" (it speaks another protocol), "" (no answer)."""
    try:
        answer = _ask(directory, {"op": "hello"})
    except _NoAnswer:
        return ""
    if answer["protocol"] != PROTOCOL:
        return "outdated"
    return "closing" if answer["closing"] else "ready"


def _settled(directory: ClusterDir) -> str | None:
    """None while a supervisor is about to answer or to end; else "ready", "outdated" or "none"."""
    state = _hello(directory)
    if state in {"ready", "outdated"}:
        return state
    return None if supervisor_alive(directory) else "none"


def _ask(directory: ClusterDir, request: Mapping[str, Any]) -> dict[str, Any]:
    """One request, one answer. Raises: _NoAnswer; CinderError when the supervisor refuses."""
    try:
        with connect(directory.run / "supervisor.sock", _ANSWER_TIMEOUT) as client, client.makefile("rwb") as stream:
            stream.write(json.dumps(request).encode() + b"\n")
            stream.flush()
            line = stream.readline()
        answer = json.loads(line)
    except (OSError, ValueError) as error:
        raise _NoAnswer from error
    if not answer.get("ok"):
        raise CinderError(str(answer.get("error", "the supervisor refused")))
    return dict(answer)


@contextlib.contextmanager
def _starting(directory: ClusterDir, wait: Wait) -> Iterator[None]:
    """Held by whoever starts or stops a supervisor, or ends components without one."""
    ensure_dir(directory.root)
    path = ensure_dir(directory.run) / "start.lock"
    with storage_errors("open", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def locked() -> bool | None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return True

    try:
        wait(locked, "another run to start or stop the supervisor", timeout=_STOP_TIMEOUT, interval=0.01)
        yield
    finally:
        os.close(descriptor)
