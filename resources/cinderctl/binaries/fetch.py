"""Bringing missing binaries into the cache: downloaded, else built.

Whoever fetches holds a lock per project, version and platform, so two runs fetch once. Files arrive under temporary
names and are renamed when whole; what a killed run left is removed by the next one that holds the lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cinderctl.binaries.build import WORK_PREFIX, build, buildable
from cinderctl.binaries.callbacks import CheckCancelled, Progress
from cinderctl.binaries.catalog import Binary, Project
from cinderctl.binaries.download import download
from cinderctl.binaries.errors import BinaryError, BuildError, DownloadError, UnavailableError, UnreachableError
from cinderctl.binaries.locate import Located, locate
from cinderctl.binaries.sources import Sources
from cinderctl.binaries.stamps import State, install
from cinderctl.binaries.transport import Transport
from cinderctl.core.diagnostics import Diagnostic
from cinderctl.host.files import StorageError, ensure_dir, remove_file, remove_tree, storage_errors

__all__ = ["fetch"]

_LOCK_POLL = 0.2


def fetch(
    missing: Sequence[tuple[Binary, str]],
    sources: Sources,
    *,
    progress: Progress,
    check_cancelled: CheckCancelled,
) -> None:
    """Get binaries, each with its version, into the cache.

    Raises: UnavailableError with one diagnostic for each project that no source gave; StorageError.
    """
    groups: dict[tuple[str, str], list[Binary]] = {}
    for binary, version in missing:
        groups.setdefault((binary.project.name, version), []).append(binary)
    failures = []
    transport = Transport(sources.environment, sources.connect_timeout, sources.stall_timeout)
    with contextlib.closing(transport):
        fetcher = _Fetcher(sources, transport, progress, check_cancelled)
        for (_, version), binaries in groups.items():
            failure = fetcher.fetch(binaries, version)
            if failure is not None:
                failures.append(failure)
    if failures:
        raise UnavailableError(failures)


@dataclass(frozen=True, slots=True)
class _Fetcher:
    """One run's way to missing binaries. Failures of sources are collected as reasons, one line each."""

    sources: Sources
    transport: Transport
    progress: Progress
    check_cancelled: CheckCancelled

    def fetch(self, binaries: Sequence[Binary], version: str) -> Diagnostic | None:
        """Get these of one project into the cache; None when all are there, else what to tell the user."""
        project = binaries[0].project
        directory = ensure_dir(self.sources.cache_directory(project, version))
        with self._locked(directory, f"{project.name} {version}"):
            found = {b.name: locate(b, self.sources, version) for b in binaries}  # perhaps the other run brought them
            left = [b for b in binaries if found[b.name].state is not State.READY]
            if not left:
                return None
            reasons = [self._directory_reason(left), _cache_reason(directory, [found[b.name] for b in left])]
            for item in (found[b.name] for b in left):
                if item.state is State.CORRUPT:
                    self.progress(f"{item.path} is damaged ({item.detail}); it is fetched anew", None, None)
            _tidy(directory)
            left = self._download(left, version, directory, reasons)
            if left:
                left = self._build(left, version, directory, reasons)
            if not left:
                _tidy(directory, parts=True)
                return None
        return _unavailable(project, left, version, self.sources, reasons)

    @contextlib.contextmanager
    def _locked(self, directory: Path, what: str) -> Iterator[None]:
        lock = FileLock(directory / ".lock", mode=0o600)
        told = False
        while not lock.is_locked:
            try:
                lock.acquire(timeout=_LOCK_POLL, poll_interval=_LOCK_POLL / 4)
            except Timeout:
                if not told:
                    self.progress(f"waiting for another run that is fetching {what}", None, None)
                    told = True
                self.check_cancelled()
            except OSError as error:
                raise StorageError("lock", directory, error) from error
        try:
            yield
        finally:
            lock.release()

    def _directory_reason(self, binaries: Sequence[Binary]) -> str:
        if self.sources.directory is None:
            return "your own directory: none is named"
        return f"your own directory: no {_names(binaries)} in {self.sources.directory}"

    def _download(self, binaries: Sequence[Binary], version: str, directory: Path, reasons: list[str]) -> list[Binary]:
        """Returns those that could not be downloaded."""
        project = binaries[0].project
        if not self.sources.allow_download:
            reasons.append("download: switched off")
            return list(binaries)
        if not self.sources.base_url(project):
            reasons.append(f"download: {project.name} is only built")
            return list(binaries)
        left: list[Binary] = []
        for position, binary in enumerate(binaries):
            try:
                with storage_errors("write to", directory):
                    arrived, url = download(
                        binary,
                        version,
                        directory,
                        sources=self.sources,
                        transport=self.transport,
                        progress=self.progress,
                        check_cancelled=self.check_cancelled,
                    )
            except UnreachableError as error:  # so are the others: said once
                reasons.append(f"download: {_told(error)}")
                self.progress(f"no download: {error.diagnostics[0].summary}", None, None)
                return [*left, *binaries[position:]]
            except DownloadError as error:
                left.append(binary)
                reasons.append(f"download: {_told(error)} ({error.url})")
                self.progress(f"{binary.name} was not downloaded: {error.diagnostics[0].summary}", None, None)
            else:
                install(arrived, directory / binary.name, version=version, origin=url)
        return left

    def _build(self, binaries: Sequence[Binary], version: str, directory: Path, reasons: list[str]) -> list[Binary]:
        """Returns those that could not be built: all or none."""
        if not self.sources.allow_build:
            reasons.append("build: switched off")
            return list(binaries)
        project = binaries[0].project
        try:
            buildable(project, version)
            arrived, origin = build(
                project,
                binaries,
                directory,
                sources=self.sources,
                progress=self.progress,
                check_cancelled=self.check_cancelled,
            )
        except BuildError as error:
            reasons.append(f"build: {_told(error)}")
            return list(binaries)
        for name, path in arrived.items():
            install(path, directory / name, version=version, origin=origin)
        return []


def _tidy(directory: Path, *, parts: bool = False) -> None:
    """Remove what interrupted runs left; half downloads only when nothing will continue them."""
    for pattern in (".*.new", ".*.part") if parts else (".*.new",):
        for path in directory.glob(pattern):
            remove_file(path)
    for path in directory.glob(f"{WORK_PREFIX}*"):
        remove_tree(path, below=directory)


def _names(binaries: Iterable[Binary]) -> str:
    return ", ".join(binary.name for binary in binaries)


def _told(error: BinaryError) -> str:
    problem = error.diagnostics[0]
    return f"{problem.summary}: {problem.detail}" if problem.detail else problem.summary


def _cache_reason(directory: Path, located: Sequence[Located]) -> str:
    absent = [item.name for item in located if item.state is State.ABSENT]
    texts = [f"no {', '.join(absent)} in {directory}"] if absent else []
    texts += [f"{item.path} is {item.state}: {item.detail}" for item in located if item.state is not State.ABSENT]
    return f"cache: {'; '.join(texts)}"


def _unavailable(
    project: Project, binaries: Sequence[Binary], version: str, sources: Sources, reasons: Sequence[str]
) -> Diagnostic:
    ways = [f"put {_names(binaries)} into a directory and name it as the directory of your own binaries"]
    if sources.base_url(project):
        ways.append(f"let this host reach {sources.base_url(project)}; a proxy is taken from HTTPS_PROXY")
    if version == project.version:
        ways.append("install Go and let it reach a Go module proxy (GOPROXY)")
    elif project.follows_spec:
        ways.append(f"ask for {project.version}, which can be built")
    ways.append(f"copy {sources.cache_directory(project, version)} from a host that has it")
    return Diagnostic(
        f"cannot get {_names(binaries)} {version} for {sources.target}",
        detail="\n".join(reasons),
        hint="one of these is enough:\n" + "\n".join(f"- {way}" for way in ways),
    )
