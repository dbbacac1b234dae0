"""What every kind is made with: the places and the programs of one cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cinderctl.host.components import Component
from cinderctl.host.control import (
    ensure_supervisor,
    put_components,
    read_components,
    remove_components,
    stop_supervisor,
)
from cinderctl.host.dirs import ClusterDir, Home

__all__ = ["Context", "run_components", "withdraw_components"]


@dataclass(frozen=True, slots=True)
class Context:
    """`supervise` is the command that supervises a directory (the directory is appended); `environment` is all that our
    long-lived processes get, `command_environment` what the user's commands start from; `python` runs our own modules.
    `kubeconfig_env` is the value of $KUBECONFIG, a list of files."""

    home: Home
    cluster: ClusterDir
    name: str
    python: str
    supervise: Sequence[str]
    environment: Mapping[str, str]
    command_environment: Mapping[str, str]
    kubeconfig_env: str = ""
    user_home: Path = Path("~")
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def mirrors_file(self) -> Path:
        """Where the cluster's registry mirrors stand; node agents read it again when it changes."""
        return self.cluster.root / "mirrors.json"


def run_components(context: Context, directory: ClusterDir, components: Sequence[Component]) -> None:
    """See that a supervisor runs in a directory and that it runs these components as defined here."""
    ensure_supervisor(directory, [*context.supervise, str(directory.root)], context.environment)
    put_components(directory, components)


def withdraw_components(directory: ClusterDir, names: Sequence[str], *, grace: float | None = None) -> None:
    """Stop and forget components; the supervisor goes with the last of them. Absence is success. `grace`: seconds until
    they are killed, for what has nothing left to lose."""
    present = [name for name in read_components(directory) if name in set(names)]
    if present:
        remove_components(directory, present, grace=grace)
    stop_supervisor(directory, stop_components=True, only_unused=True)
