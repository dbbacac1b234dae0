"""`start`, `stop`, `status`, `logs`: a cluster that is there, without changing what it is."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer

from cinderctl.cli.options import Files, Name, Output, OutputOption

__all__ = ["logs", "start", "status", "stop"]

_READY = {"ready", "running"}


def start(
    files: Files = None, name: Name = None, timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 120
) -> None:
    """Bring a stopped cluster back with its data, after a reboot too."""
    from cinderctl.cli.wiring import cluster_name, directories_of, own_environment, supervise_command
    from cinderctl.core.diagnostics import CinderError, DeadlineError
    from cinderctl.host.control import ensure_supervisor, read_components, read_status

    cluster = cluster_name(files, name)
    directories = directories_of(cluster)
    if not directories:
        raise CinderError(f"there is no cluster {cluster!r}", hint="`cinderctl get clusters` lists those there are")
    for directory in directories:
        ensure_supervisor(directory, [*supervise_command(), str(directory.root)], own_environment())
    deadline = time.monotonic() + timeout
    waiting = [(directory, component) for directory in directories for component in read_components(directory)]
    while waiting:
        waiting = [
            (directory, component)
            for directory, component in waiting
            if (now := read_status(directory).get(component)) is None or now.state not in _READY
        ]
        if waiting and time.monotonic() > deadline:
            names = ", ".join(component for _, component in waiting)
            raise DeadlineError(
                f"not ready after {timeout:g} s: {names}", hint="`cinderctl status` and `cinderctl logs` say more"
            )
        time.sleep(0.05 if waiting else 0)
    sys.stderr.write(f"cluster {cluster} is up\n")


def stop(files: Files = None, name: Name = None) -> None:
    """Stop every process of a cluster; its data stay and `start` brings it back. A shared registry goes on."""
    from cinderctl.cli.wiring import cluster_name, home
    from cinderctl.core.diagnostics import CinderError
    from cinderctl.host.control import stop_supervisor

    cluster = cluster_name(files, name)
    directory = home().cluster(cluster)
    if not directory.root.exists():
        raise CinderError(f"there is no cluster {cluster!r}", hint="`cinderctl get clusters` lists those there are")
    stop_supervisor(directory, stop_components=True)
    sys.stderr.write(f"cluster {cluster} is stopped\n")


def status(files: Files = None, name: Name = None, output: OutputOption = Output.TEXT) -> None:
    """Show the processes of a cluster: state, since when, restarts, logs."""
    from cinderctl.cli.tables import table
    from cinderctl.cli.wiring import cluster_name, directories_of
    from cinderctl.core.diagnostics import CinderError
    from cinderctl.host.control import read_components, read_status

    cluster = cluster_name(files, name)
    rows: list[dict[str, Any]] = []
    for directory in directories_of(cluster):
        states = read_status(directory)
        for component in read_components(directory):
            now = states.get(component)
            rows.append(
                {
                    "component": component,
                    "state": now.state if now else "stopped",
                    "pid": now.identity.pid if now and now.identity else None,
                    "since": now.since if now else None,
                    "unexpected_exits": now.unexpected_exits if now else 0,
                    "last_exit": now.last_exit if now else "",
                    "error": now.error if now else "",
                    "log": str(directory.log(component)),
                }
            )
    if not rows:
        raise CinderError(f"there is no cluster {cluster!r}", hint="`cinderctl get clusters` lists those there are")
    if output is Output.JSON:
        sys.stdout.write(json.dumps({"format_version": "1.0", "cluster": cluster, "components": rows}) + "\n")
        return
    shown = [
        (
            row["component"],
            row["state"],
            str(row["pid"] or "-"),
            _age(row["since"]) if row["state"] in _READY else "-",
            str(row["unexpected_exits"]),
            row["error"] or row["last_exit"] or "-",
        )
        for row in rows
    ]
    sys.stdout.write(table(("COMPONENT", "STATE", "PID", "UP", "EXITS", "LAST EXIT"), shown))


def logs(
    component: Annotated[str, typer.Argument(help="A component of `cinderctl status`, as kube-apiserver.")],
    files: Files = None,
    name: Name = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on as the log grows.")] = False,
    tail: Annotated[int, typer.Option("--tail", help="Only the last lines; 0 for all.", min=0)] = 0,
) -> None:
    """Print the log of one component."""
    from cinderctl.cli.wiring import cluster_name, directories_of
    from cinderctl.core.diagnostics import UsageError
    from cinderctl.host.control import read_components

    cluster = cluster_name(files, name)
    directories = directories_of(cluster)
    known = sorted({one for directory in directories for one in read_components(directory)})
    path = next((d.log(component) for d in directories if component in read_components(d)), None)
    if path is None:
        path = next((d.log(component) for d in directories if d.log(component).exists()), None)
    if path is None:
        raise UsageError(
            f"cluster {cluster!r} has no component {component!r}", hint=f"it has: {', '.join(known) or 'none'}"
        )
    if not path.exists():
        return
    with path.open("rb") as log:
        content = log.read()
        sys.stdout.buffer.write(b"".join(content.splitlines(keepends=True)[-tail:]) if tail else content)
        sys.stdout.buffer.flush()
        while follow:
            more = log.read()
            if more:
                sys.stdout.buffer.write(more)
                sys.stdout.buffer.flush()
            elif path.stat().st_size < log.tell():
                log.seek(0)  # rotated
            else:
                time.sleep(0.2)


def _age(since: float | None) -> str:
    if since is None:
        return "-"
    seconds = int(max(0.0, time.time() - since))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
