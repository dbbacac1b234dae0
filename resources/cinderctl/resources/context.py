"""What every kind is made with: the places and the programs of one cluster."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cinderctl.core.diagnostics import CinderError, TransientError
from cinderctl.host.components import Component
from cinderctl.host.control import (
    ensure_supervisor,
    put_components,
    read_components,
    read_status,
    remove_components,
    stop_supervisor,
)
from cinderctl.host.dirs import ClusterDir, Home
from cinderctl.host.files import tail

__all__ = ["Context", "component_ready", "run_components", "withdraw_components"]

# Space that a component may need to start, in bytes: etcd lays out its log of 64 MiB before the first write.
_ENOUGH_SPACE = 128 << 20
_ENOUGH_RESTARTS = 3  # one may be bad luck (a port not free yet); after these it is the program or its flags


@dataclass(frozen=True, slots=True)
class Context:
    """`supervise` is the command that supervises a directory (the directory is appended); `environment` is all that our
    long-lived processes get, `command_environment` what the user's commands start from; `python` runs our own modules.
    `kubeconfig_env` is the value of $KUBECONFIG, a list of files. `destroying`: all of the cluster is to go."""

    home: Home
    cluster: ClusterDir
    name: str
    python: str
    supervise: Sequence[str]
    environment: Mapping[str, str]
    command_environment: Mapping[str, str]
    kubeconfig_env: str = ""
    user_home: Path = Path("~")
    destroying: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def mirrors_file(self) -> Path:
        """Where the cluster's registry mirrors stand; node agents read it again when it changes."""
        return self.cluster.root / "mirrors.json"


def run_components(context: Context, directory: ClusterDir, components: Sequence[Component]) -> None:
    """See that a supervisor runs in a directory and that it runs these components as defined here."""
    ensure_supervisor(directory, [*context.supervise, str(directory.root)], context.environment)
    put_components(directory, components)


def component_ready(directory: ClusterDir, name: str) -> bool | None:
    """A condition for `Step.wait_until`: whether a component is ready.

    Raises: CinderError with the end of its log when it does not stay up, TransientError with why it is not ready yet.
    """
    now = read_status(directory).get(name)
    if now is None:
        return None
    if now.state == "ready":
        return True
    if now.state == "failed" or (now.state == "backoff" and now.restarts >= _ENOUGH_RESTARTS):
        log = directory.log(name)
        raise CinderError(
            f"{name} does not stay up: {now.error or now.last_exit}",
            detail="\n".join([*_shortage(directory), *tail(log, 8), f"(from {log})"]),
            hint=f"`cinderctl logs {name}` shows all of it",
        )
    raise TransientError(f"{name} is {now.state}{f': {now.error}' if now.error else ''}", retry_after=0.02)


def _shortage(directory: ClusterDir) -> list[str]:
    """A line on the disk when it is nearly full: programs say it in the middle of a stack trace, if at all."""
    free = shutil.disk_usage(directory.root).free
    return [f"only {free >> 20} MiB of space are left on the disk of {directory.root}"] if free < _ENOUGH_SPACE else []


def withdraw_components(directory: ClusterDir, names: Sequence[str], *, grace: float | None = None) -> None:
    """Stop and forget components; the supervisor goes with the last of them. Absence is success. `grace`: seconds until
    they are killed, for what has nothing left to lose."""
    present = [name for name in read_components(directory) if name in set(names)]
    if present:
        remove_components(directory, present, grace=grace)
    stop_supervisor(directory, stop_components=True, only_unused=True)
