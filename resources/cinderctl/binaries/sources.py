"""Where binaries may come from in one run. A value: whoever makes it has read the environment and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cinderctl.binaries.catalog import Project, Target, host_target

__all__ = ["Sources"]


@dataclass(frozen=True, slots=True)
class Sources:
    """Tried in the order of the fields.

    `directory`: the user's own binaries, by their plain names. `cache`: the root that all clusters share. `base_urls`:
    project name → a mirror of its official downloads, same layout below. `go`: the Go command to use, "" for the one on
    the environment's PATH; where neither serves and `allow_toolchain` holds, one is installed into the cache.
    `environment` is what child processes (go, pip) get and where proxies are looked up. Timeouts in seconds; a stall is
    that long without a byte.
    """

    cache: Path
    directory: Path | None = None
    allow_download: bool = True
    base_urls: Mapping[str, str] = field(default_factory=dict)
    allow_build: bool = True
    go: str = ""
    allow_toolchain: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    target: Target = field(default_factory=host_target)
    connect_timeout: float = 5.0
    stall_timeout: float = 15.0

    def with_directory(self, directory: str | Path | None) -> Sources:
        """The same with the user's own directory; "" and None leave it as it is."""
        return replace(self, directory=Path(directory).absolute()) if directory else self

    def cache_directory(self, project: Project, version: str) -> Path:
        """`<cache>/<project>/<version>/<os>-<arch>`, which holds the files by their plain names."""
        return self.cache / project.name / version / str(self.target)

    def base_url(self, project: Project) -> str:
        """Without a trailing slash; "" for a project that publishes nothing we use."""
        if project.layout is None:
            return ""
        return self.base_urls.get(project.name, project.layout.base).rstrip("/")
