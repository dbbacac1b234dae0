"""Which binaries there are, who publishes them, and what builds them. Data only.

A *project* is what one upstream releases under one version; its lock is the Go module (`go.mod`, `go.sum`) that pins
a build by hash. Layouts of the official downloads, as each project documents them:

- kubernetes: plain files at `/<version>/bin/<os>/<arch>/<name>`, a `.sha256` (later also `.sha512`) beside each
- etcd: an archive per platform (zip on macOS), one `SHA256SUMS` for all
- registry (CNCF Distribution): an archive per platform, a `.sha256` beside each; Linux only
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cinderctl.core.diagnostics import UsageError

__all__ = [
    "BINARIES",
    "CONTROL_PLANE",
    "DEFAULT",
    "KUBERNETES_VERSION",
    "PROJECTS",
    "Binary",
    "Layout",
    "Project",
    "Target",
    "binaries_named",
    "host_target",
    "normal_version",
    "version_of",
]

KUBERNETES_VERSION = "v1.36.3"

_LOCKS = Path(__file__).parent / "locks"


@dataclass(frozen=True, slots=True)
class Target:
    """The platform, in Go's words: `linux`, `amd64`."""

    os: str
    arch: str

    def __str__(self) -> str:
        return f"{self.os}-{self.arch}"


def host_target() -> Target:
    """The platform we run on."""
    machine = platform.machine().lower()
    arch = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}.get(machine, machine)
    return Target(platform.system().lower(), arch)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a project publishes: templates below its base URL, with {version}, {bare} (without the v), {os}, {arch},
    {name} and {archive}. `member` is the path inside an archive, "" for a plain file. `checksums` are tried in order;
    {file} stands for the file's own path."""

    base: str
    file: str
    checksums: tuple[str, ...]
    member: str = ""


@dataclass(frozen=True, slots=True)
class Project:
    """`version` is the one the lock pins. `follows_spec`: other versions can be asked for, and then only downloaded.
    `ldflags` set the version the binary reports."""

    name: str
    version: str
    module: str
    lock: Path
    ldflags: tuple[str, ...] = ()
    layout: Layout | None = None
    follows_spec: bool = False


@dataclass(frozen=True, slots=True)
class Binary:
    """`package` is the Go command, `built_as` the file name `go build` gives it, `version_arguments` make it tell its
    version."""

    name: str
    project: Project
    package: str
    built_as: str = ""
    version_arguments: tuple[str, ...] = ("--version",)


def _kubernetes_ldflags(version: str, published: str) -> tuple[str, ...]:
    """The variables upstream's release build sets. The commit is not told by a Go module, hence zeros and `archive`."""
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {
        "gitVersion": version,
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "0" * 40,
        "gitTreeState": "archive",
        "buildDate": published,
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return tuple(f"-X {package}.{key}={value}" for package in packages for key, value in values.items())


_KUBERNETES = Project(
    "kubernetes",
    KUBERNETES_VERSION,
    "k8s.io/kubernetes",
    _LOCKS / "kubernetes",
    ldflags=_kubernetes_ldflags(KUBERNETES_VERSION, "2026-07-22T18:07:38Z"),
    layout=Layout(
        "https://dl.k8s.io",
        "{version}/bin/{os}/{arch}/{name}",
        ("{file}.sha256", "{file}.sha512"),
    ),
    follows_spec=True,
)
_ETCD = Project(
    "etcd",
    "v3.6.16",
    "go.etcd.io/etcd/server/v3",
    _LOCKS / "etcd",
    ldflags=("-X go.etcd.io/etcd/api/v3/version.GitSHA=module",),
    layout=Layout(
        "https://github.com/etcd-io/etcd/releases/download",
        "{version}/etcd-{version}-{os}-{arch}.{archive}",
        ("{version}/SHA256SUMS",),
        member="etcd-{version}-{os}-{arch}/{name}",
    ),
)
_REGISTRY = Project(
    "registry",
    "v3.1.2",
    "github.com/distribution/distribution/v3",
    _LOCKS / "registry",
    ldflags=("-X github.com/distribution/distribution/v3/version.version=v3.1.2",),
    layout=Layout(
        "https://github.com/distribution/distribution/releases/download",
        "{version}/registry_{bare}_{os}_{arch}.tar.gz",
        ("{file}.sha256",),
        member="{name}",
    ),
)
# Only measured against, so only built.
_KWOK = Project(
    "kwok",
    "v0.8.0",
    "sigs.k8s.io/kwok",
    _LOCKS / "kwok",
    ldflags=("-X sigs.k8s.io/kwok/pkg/consts.Version=v0.8.0",),
)


def _kubernetes(name: str, *version_arguments: str) -> Binary:
    arguments = version_arguments or ("--version",)
    return Binary(name, _KUBERNETES, f"k8s.io/kubernetes/cmd/{name}", version_arguments=arguments)


PROJECTS = {project.name: project for project in (_KUBERNETES, _ETCD, _REGISTRY, _KWOK)}

BINARIES = {
    binary.name: binary
    for binary in (
        _kubernetes("kube-apiserver"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kubectl", "version", "--client"),
        _kubernetes("kubelet"),
        _kubernetes("kubeadm", "version", "--output=short"),
        _kubernetes("kube-proxy"),
        Binary("etcd", _ETCD, "go.etcd.io/etcd/server/v3", built_as="server"),
        Binary("registry", _REGISTRY, "github.com/distribution/distribution/v3/cmd/registry"),
        Binary("kwok", _KWOK, "sigs.k8s.io/kwok/cmd/kwok"),
        Binary("kwokctl", _KWOK, "sigs.k8s.io/kwok/cmd/kwokctl"),
    )
}

CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
DEFAULT = (*CONTROL_PLANE, "registry")


def binaries_named(names: Iterable[str]) -> tuple[Binary, ...]:
    """The catalogue's entries, in the order given, each once. Raises: UsageError naming the unknown ones."""
    names = tuple(dict.fromkeys(names))
    if unknown := [name for name in names if name not in BINARIES]:
        raise UsageError(f"no such binary: {', '.join(unknown)}", hint=f"there are {', '.join(BINARIES)}")
    return tuple(BINARIES[name] for name in names)


def normal_version(version: str) -> str:
    """`v1.36.3` for `1.36.3` or `v1.36.3`. Raises: UsageError: it becomes a path and a URL."""
    if not re.fullmatch(r"v?\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?", version):
        raise UsageError(
            f"not a Kubernetes version: {version!r}", hint=f"write all three numbers, as {KUBERNETES_VERSION}"
        )
    return "v" + version.removeprefix("v")


def version_of(binary: Binary, kubernetes_version: str) -> str:
    """The version wanted of a binary: Kubernetes' as asked for, the others' as locked. Raises: UsageError."""
    return normal_version(kubernetes_version) if binary.project.follows_spec else binary.project.version
