"""Puts the parts together: the environment, the spec, the kinds, the declarations. The only reader of the
environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinderctl.core.diagnostics import CinderError, Diagnostic, SpecError, UsageError
from cinderctl.core.digest import sha256_of
from cinderctl.core.version import __version__
from cinderctl.host.dirs import ClusterDir, Home

if TYPE_CHECKING:
    from cinderctl.binaries.sources import Sources
    from cinderctl.engine.kinds import Declaration, ResourceKind
    from cinderctl.kube.client import KubeClient
    from cinderctl.oci.client import RegistryClient
    from cinderctl.resources.context import Context
    from cinderctl.spec.load import Loaded

__all__ = [
    "Session",
    "admin_kubeconfig",
    "api_client",
    "binary_sources",
    "cluster_name",
    "directories_of",
    "export_entries",
    "home",
    "load_spec",
    "load_text",
    "open_session",
    "own_environment",
    "registry_client",
    "supervise_command",
]

# What processes that live as long as a cluster may need of their starter's environment. Few on purpose: tokens
# and cloud credentials stay out, and a component is restarted when its environment changes.
_KEPT = ("HOME", "PYTHONPATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
         "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME")  # fmt: skip


def home() -> Home:
    """The state and cache roots of this user."""
    return Home.from_env(os.environ)


def own_environment() -> dict[str, str]:
    """The environment of processes that outlive this one."""
    kept = {key: value for key, value in os.environ.items() if key in _KEPT}
    return {"PATH": os.defpath, "PYTHONUNBUFFERED": "1", **kept}


def supervise_command() -> list[str]:
    """What supervises a directory, which is to be appended."""
    return [sys.executable, "-m", "cinderctl.cli.supervise"]


def binary_sources() -> Sources:
    """Where upstream's binaries may come from. CINDERCTL_BINARIES names a directory of the user's own."""
    from cinderctl.binaries.sources import Sources

    sources = Sources(cache=home().cache, environment=dict(os.environ))
    return sources.with_directory(os.environ.get("CINDERCTL_BINARIES", ""))


def load_spec(files: Sequence[str] | None, name: str | None) -> Loaded:
    """Raises: SpecError with every problem at once."""
    from cinderctl.spec.load import load

    return _provided(load(files or (), cwd=Path.cwd(), stdin=sys.stdin, name=name, home=Path.home()))


def load_text(text: str, name: str | None) -> Loaded:
    """A spec that no file holds."""
    import io

    from cinderctl.spec.load import load

    return load(["-"], cwd=Path.cwd(), stdin=io.StringIO(text), name=name, home=Path.home())


def _provided(loaded: Loaded) -> Loaded:
    """Raises: SpecError for a provider that this version does not have."""
    provider = loaded.config.provider
    if provider != "process":
        problem = Diagnostic(
            f"this version of cinderctl has no provider `{provider}` yet",
            hint="write `provider: process`, which needs neither Docker nor root",
            path=("provider",),
            source=loaded.source(("provider",)),
        )
        raise SpecError(problem)
    return loaded


def cluster_name(files: Sequence[str] | None, name: str | None) -> str:
    """Which cluster a command is about: `--name`, else the spec's, else the only one there is.

    Raises: SpecError for a spec that cannot be used, UsageError when nothing says which.
    """
    if name:
        return name
    if files or any(Path(candidate).exists() for candidate in ("cluster.yaml", "cinder.yaml")):
        return load_spec(files, None).config.name
    clusters = home().clusters()
    if len(clusters) == 1:
        return clusters[0]
    there = f"there are: {', '.join(clusters)}" if clusters else "there is none yet"
    raise UsageError("no spec here and no --name says which cluster", hint=f"name a cluster or a spec; {there}")


@dataclass(frozen=True, slots=True)
class Session:
    """All that a run on one cluster needs. `loaded` is None for a cluster that is only to go."""

    name: str
    context: Context
    kinds: Mapping[str, ResourceKind[Any]]
    declarations: Sequence[Declaration]
    loaded: Loaded | None


def open_session(loaded: Loaded | None, name: str) -> Session:
    """The kinds of the process provider, and the declarations of the spec."""
    from cinderctl.resources.catalog import Material, declare
    from cinderctl.resources.context import Context
    from cinderctl.resources.provider import process_kinds

    root = home()
    context = Context(
        home=root,
        cluster=root.cluster(name),
        name=name,
        python=sys.executable,
        supervise=supervise_command(),
        environment=own_environment(),
        command_environment=dict(os.environ),
        kubeconfig_env=os.environ.get("KUBECONFIG", ""),
        user_home=Path.home(),
        destroying=loaded is None,
    )
    material = Material() if loaded is None else _material(loaded)
    contents = {sha256_of(data): data for data in material.files.values()}
    kinds = process_kinds(context, binary_sources(), contents, __version__)
    declarations = declare(loaded.config, material) if loaded is not None else []
    return Session(name, context, kinds, declarations, loaded)


def _material(loaded: Loaded) -> Any:
    from cinderctl.resources.catalog import Material

    config = loaded.config
    modules: dict[str, tuple[str, str, str]] = {}
    for artifact in config.artifacts:
        from cinderctl.oci.artifact import artifact_digest

        path = Path(artifact.path)
        digest = artifact_digest(path, format=artifact.format) if path.is_file() else ""
        modules[artifact.name] = (str(path), digest, artifact.build.directory if artifact.build else "")
    return Material(
        files={item.path: loaded.file_data(index) for index, item in enumerate(config.files)},
        objects=[(item.value, item.source) for item in loaded.objects],
        modules=modules,
        binaries_directory=str(config.binaries.directory or ""),
        kubeconfig_path=str(config.kubeconfig.path or ""),
        source=loaded.source,
    )


def directories_of(cluster: str) -> list[ClusterDir]:
    """The directories whose supervisors a cluster needs: its own and those of the registries it uses."""
    from cinderctl.host.control import read_components
    from cinderctl.host.records import list_records

    root = home()
    own = root.cluster(cluster)
    found: list[ClusterDir] = [own] if read_components(own) else []
    return found + [root.registry(record.address.name) for record in list_records(own.records, "registry")]


def api_client(cluster: str) -> KubeClient:
    """Raises: CinderError when the cluster has no control plane."""
    from cinderctl.resources.cluster_api import ClusterApi

    client = ClusterApi(home().cluster(cluster)).client()
    if client is None:
        raise CinderError(f"there is no cluster {cluster!r}", hint="`cinderctl get clusters` lists those there are")
    return client


def admin_kubeconfig(cluster: str) -> tuple[Path, Mapping[str, Any]]:
    """The administrator's kubeconfig file, and what it says with the credentials written out."""
    from cinderctl.resources.kubeconfig import complete_kubeconfig

    directory = home().cluster(cluster)
    file = directory.kubeconfigs / "admin.conf"
    if not file.exists():
        raise CinderError(f"there is no cluster {cluster!r}", hint="`cinderctl get clusters` lists those there are")
    return file, complete_kubeconfig(directory)


def export_entries(cluster: str, file: Path | None) -> str:
    """Merge the cluster's entries into a kubeconfig; returns the context's name."""
    from cinderctl.resources.kubeconfig import export_entries as merge_entries

    admin_kubeconfig(cluster)
    return merge_entries(home().cluster(cluster), os.environ.get("KUBECONFIG", ""), Path.home(), file)


def _docker_config_file() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


@contextmanager
def registry_client() -> Iterator[RegistryClient]:
    """With the user's own registry logins (`docker login`)."""
    from cinderctl.oci.auth import docker_config
    from cinderctl.oci.client import RegistryClient

    with RegistryClient(credentials=docker_config(_docker_config_file())) as client:
        yield client
