"""Where things live: what must survive below `$XDG_STATE_HOME/cinderctl`, the rest in `$XDG_CACHE_HOME/cinderctl`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cinderctl.core.diagnostics import CinderError, UsageError

__all__ = ["ClusterDir", "Home", "RegistryDir"]

# A DNS label (RFC 1123): cluster names become node and host names. It cannot start with the `_` of our own folders.
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ClusterDir:
    """The directory of one cluster, or of anything else one supervisor looks after. Only names paths, makes nothing."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def records(self) -> Path:
        """Sidecars of what we made: `<address>.json`."""
        return self.root / "records"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def kubeconfigs(self) -> Path:
        return self.root / "kubeconfigs"

    @property
    def components(self) -> Path:
        """What the supervisor is to run: `<component>.json`."""
        return self.root / "components"

    @property
    def run(self) -> Path:
        """What runs now: meaningless after a reboot."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def etcd(self) -> Path:
        return self.root / "etcd"

    @property
    def network(self) -> Path:
        return self.root / "network.json"

    @property
    def nodes(self) -> Path:
        return self.root / "nodes"

    @property
    def local_path(self) -> Path:
        return self.root / "local-path"

    @property
    def files(self) -> Path:
        return self.root / "files"

    def log(self, component: str) -> Path:
        return self.logs / f"{component}.log"

    def node(self, name: str) -> Path:
        """The home of one node agent."""
        return self.nodes / name


@dataclass(frozen=True, slots=True)
class RegistryDir(ClusterDir):
    """The directory of a registry that clusters share: its data, and one file for each cluster that uses it."""

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def users(self) -> Path:
        return self.root / "users"


@dataclass(frozen=True, slots=True)
class Home:
    """The two roots of one user."""

    state: Path
    cache: Path

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Home:
        """From XDG_STATE_HOME, XDG_CACHE_HOME and HOME. The XDG specification has relative paths ignored.

        Raises: UsageError when no home directory can be told.
        """

        def base(variable: str, default: str) -> Path:
            given = Path(env.get(variable, ""))
            if given.is_absolute():
                return given
            home = Path(env.get("HOME", ""))
            if not home.is_absolute():
                raise UsageError("no home directory", hint=f"set HOME or {variable} to an absolute path")
            return home / default

        return cls(base("XDG_STATE_HOME", ".local/state") / "cinderctl", base("XDG_CACHE_HOME", ".cache") / "cinderctl")

    @property
    def host(self) -> Path:
        """What all clusters of the user share: allocations of ports and addresses."""
        return self.state / "_host"

    @property
    def registries(self) -> Path:
        return self.state / "_registry"

    def cluster(self, name: str) -> ClusterDir:
        """Raises: CinderError for a name that is no DNS label (it would also name a folder outside)."""
        if not _LABEL.fullmatch(name):
            raise CinderError(
                f"not a cluster name: {name!r}", hint="use lower-case letters, digits and dashes, at most 63 characters"
            )
        return ClusterDir(self.state / name)

    def clusters(self) -> list[str]:
        """Names of the clusters that have a directory, sorted."""
        try:
            entries = list(self.state.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(entry.name for entry in entries if _LABEL.fullmatch(entry.name) and entry.is_dir())

    def registry(self, name: str) -> RegistryDir:
        """Raises: CinderError for a name that is no host name."""
        if not all(_LABEL.fullmatch(label) for label in name.split(".")):
            raise CinderError(f"not a registry name: {name!r}", hint="use a host name, as cinderegg")
        return RegistryDir(self.registries / name)
