"""What a supervisor runs, as written to `components/<name>.json`, and what it says of it, in `run/<name>.json`.

The definitions are the truth of what should run and survive everything; the status tells of living processes, so it is
void after a reboot, and a damaged one is made anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

from cinderctl.core.diagnostics import CinderError
from cinderctl.core.digest import digest_of
from cinderctl.host.dirs import ClusterDir
from cinderctl.host.files import CorruptFileError, ensure_dir, read_json, remove_file, write_json
from cinderctl.host.identity import Identity, identity_of

__all__ = [
    "PROTOCOL",
    "Component",
    "ComponentStatus",
    "Probe",
    "ProbeKind",
    "State",
    "check_components",
    "delete_component",
    "delete_status",
    "load_components",
    "load_status",
    "mark_of",
    "save_component",
    "save_status",
    "status_names",
    "stop_order",
]

PROTOCOL = 1  # of the control socket; a client that speaks another one replaces the supervisor

ProbeKind: TypeAlias = Literal["none", "tcp", "http", "https", "unix", "file"]
State: TypeAlias = Literal["starting", "running", "ready", "backoff", "stopped", "failed"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_RESERVED = "supervisor"  # its own files lie beside those of the components


@dataclass(frozen=True, slots=True)
class Probe:
    """When a component is ready.

    `target`: host:port (tcp), URL (http, https: answers 200), path (unix: a server accepts there; file: it exists).
    `ca`, `cert`, `key`: paths of PEM files for https; without a CA the server is not verified. `timeout`: seconds until
    a component that is not ready counts as failed. `expect`: text the answer must contain.
    """

    kind: ProbeKind = "none"
    target: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    timeout: float = 60.0
    expect: str = ""


@dataclass(frozen=True, slots=True)
class Component:
    """A program (`argv`, with `env` as its whole environment), or a `task` run inside the supervisor with `config`.

    For a program `config` only says what its maker wants to remember. It starts when all in `after` are ready, and is
    stopped before them. `stop_grace`: seconds from SIGTERM to SIGKILL. `nofile`: soft limit of open files, 0 for none.
    """

    name: str
    argv: tuple[str, ...] = ()
    task: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    after: tuple[str, ...] = ()
    probe: Probe = Probe()
    stop_grace: float = 10.0
    nofile: int = 0

    @property
    def digest(self) -> str:
        """Of everything: what runs under another digest is restarted."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "argv": list(self.argv),
            "task": self.task,
            "config": dict(self.config),
            "env": dict(self.env),
            "cwd": self.cwd,
            "after": list(self.after),
            "probe": asdict(self.probe),
            "stopGrace": float(self.stop_grace),
            "nofile": self.nofile,
        }

    @classmethod
    def from_json(cls, value: Any) -> Component:
        """Raises: ValueError for anything `to_json` did not give."""
        try:
            return cls(
                name=str(value["name"]),
                argv=tuple(str(item) for item in value["argv"]),
                task=str(value["task"]),
                config=dict(value["config"]),
                env={str(key): str(item) for key, item in value["env"].items()},
                cwd=str(value["cwd"]),
                after=tuple(str(item) for item in value["after"]),
                probe=Probe(**value["probe"]),
                stop_grace=float(value["stopGrace"]),
                nofile=int(value["nofile"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a component: {error}") from error


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """What runs under a name.

    starting: waits for those it comes after, or is about to be started anew · running: started, not ready yet · ready ·
    backoff: ended by itself, will be started again · failed: cannot be started, or not ready in time (both are tried
    again) · stopped: as asked for, or nobody looks after it. `restarts`: starts after the first of this definition;
    `unexpected_exits`: ends nobody asked for, since the last acknowledgement. `last_exit`: `exit 1`, `signal 9`, or
    `error: ...` of a task. `since`: when it came into this state, seconds since the epoch. `digest`: of the definition.
    """

    name: str
    state: State = "stopped"
    identity: Identity | None = None
    restarts: int = 0
    unexpected_exits: int = 0
    last_exit: str = ""
    since: float = 0.0
    digest: str = ""
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "identity": self.identity.to_json() if self.identity else None,
            "restarts": self.restarts,
            "unexpectedExits": self.unexpected_exits,
            "lastExit": self.last_exit,
            "since": self.since,
            "digest": self.digest,
            "error": self.error,
        }

    @classmethod
    def from_json(cls, value: Any) -> ComponentStatus:
        """Raises: ValueError for anything `to_json` did not give."""
        try:
            state = value["state"]
            if state not in get_args(State):
                raise ValueError(f"not a component's state: {state!r}")
            return cls(
                name=str(value["name"]),
                state=state,
                identity=Identity.from_json(value["identity"]) if value["identity"] else None,
                restarts=int(value["restarts"]),
                unexpected_exits=int(value["unexpectedExits"]),
                last_exit=str(value["lastExit"]),
                since=float(value["since"]),
                digest=str(value["digest"]),
                error=str(value["error"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a component's status: {error}") from error

    def gone(self) -> ComponentStatus:
        """The same, with nothing running."""
        return replace(self, state="stopped", identity=None)

    def found_dead(self) -> ComponentStatus:
        """What a status says whose process is not there. It ended while nobody looked: unexpectedly, if it was to run;
        with the whole machine, that is nothing to complain about."""
        here = identity_of(os.getpid(), "")
        ran_here = self.identity is not None and here is not None and here.boot == self.identity.boot
        if not ran_here or self.state not in {"running", "ready"}:
            return self.gone()
        return replace(self.gone(), unexpected_exits=self.unexpected_exits + 1, last_exit="exit unknown")


def check_components(components: Iterable[Component]) -> None:
    """Refuse what cannot run: bad names, neither or both of program and task, circles in `after`.

    Raises: CinderError.
    """
    known = {component.name: component for component in components}
    for component in known.values():
        if not _NAME.fullmatch(component.name) or component.name == _RESERVED:
            raise CinderError(f"not a component name: {component.name!r}")
        if bool(component.argv) == bool(component.task):
            raise CinderError(f"component {component.name} must have either a command or a task")
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise CinderError(f"components wait for each other: {' after '.join([*path[path.index(name) :], name])}")
        if name in known and name not in done:
            for other in known[name].after:
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(known):
        visit(name, ())


def stop_order(components: Mapping[str, Component], names: Iterable[str]) -> list[str]:
    """The names so that each comes before those it was started after (circles are cut somewhere)."""
    wanted, done, order = set(names), set[str](), list[str]()

    def visit(name: str) -> None:
        if name in done:
            return
        done.add(name)
        if name in components:
            for other in sorted(components[name].after):
                visit(other)
        if name in wanted:
            order.append(name)

    for name in sorted(wanted):
        visit(name)
    return order[::-1]


def load_components(directory: ClusterDir) -> tuple[dict[str, Component], set[str]]:
    """The definitions, and the names of those that are damaged. Raises: StorageError."""
    components: dict[str, Component] = {}
    damaged: set[str] = set()
    for path in sorted(directory.components.glob("[!.]*.json")):
        try:
            value = read_json(path)
            if value is not None:
                component = Component.from_json(value)
                if component.name != path.stem:
                    raise ValueError(f"named {component.name!r} inside")
                components[component.name] = component
        except (CorruptFileError, ValueError):
            damaged.add(path.stem)
    return components, damaged


def save_component(directory: ClusterDir, component: Component) -> None:
    """Raises: StorageError."""
    ensure_dir(directory.components)
    write_json(directory.components / f"{component.name}.json", component.to_json())


def delete_component(directory: ClusterDir, name: str) -> None:
    """Absence is success. Raises: StorageError."""
    remove_file(directory.components / f"{name}.json")


def load_status(directory: ClusterDir, name: str) -> ComponentStatus | None:
    """None when there is none. Raises: StorageError, CorruptFileError."""
    path = directory.run / f"{name}.json"
    value = read_json(path)
    if value is None:
        return None
    try:
        return ComponentStatus.from_json(value)
    except ValueError as error:
        raise CorruptFileError(path, str(error)) from error


def save_status(directory: ClusterDir, status: ComponentStatus) -> None:
    """Outlasts every process but not the machine: after a power cut nothing runs anyway. Raises: StorageError."""
    write_json(directory.run / f"{status.name}.json", status.to_json(), durable=False)


def delete_status(directory: ClusterDir, name: str) -> None:
    """Absence is success. Raises: StorageError."""
    remove_file(directory.run / f"{name}.json")


def status_names(directory: ClusterDir) -> set[str]:
    """Components that have a status, readable or not."""
    return {path.stem for path in directory.run.glob("[!.]*.json")} - {_RESERVED}


def mark_of(directory: ClusterDir) -> str:
    """What `host.identity.find_marked` finds the directory's processes by."""
    return str(directory.root)
