"""Building a project's commands from its locked Go modules, with a Go toolchain and a Go module proxy."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cinderctl.binaries.callbacks import CheckCancelled, LineSink, Progress, ignore_line
from cinderctl.binaries.catalog import Binary, Project
from cinderctl.binaries.commands import run
from cinderctl.binaries.errors import BuildError
from cinderctl.binaries.sources import Sources
from cinderctl.binaries.toolchain import find_go, go_environment, required_version
from cinderctl.host.files import remove_tree, storage_errors

__all__ = ["WORK_PREFIX", "build", "buildable"]

WORK_PREFIX = ".build-"

# What go list says of a command that only needs linking; go build -v does not name it.
_COMPILED = "not installed but available in build cache"

# (arguments, on_output, on_error_line): one go command in the copied lock
RunGo = Callable[[Sequence[str], LineSink, LineSink], None]


def buildable(project: Project, version: str) -> None:
    """Raises: BuildError when the lock is of another version than the one asked for."""
    if version != project.version:
        raise BuildError(
            f"{project.name} {version} cannot be built here: only {project.version} is locked",
            hint=f"use {project.version}, or have {version} downloaded or in a directory of yours",
        )


def build(
    project: Project,
    binaries: Sequence[Binary],
    into: Path,
    *,
    sources: Sources,
    progress: Progress,
    check_cancelled: CheckCancelled,
) -> tuple[dict[str, Path], str]:
    """Build some of a project's commands into a directory, under temporary names. Returns them by name, and the origin.

    The lock is copied, so nothing is written beside it; `-mod=readonly` and go.sum hold every module to its hash. One
    `go build` makes them all, since they share most packages. Go's own cache keeps what an interrupted build compiled.
    Raises: BuildError, StorageError, what `check_cancelled` raises.
    """
    go = find_go(required_version(project.lock), sources, progress=progress, check_cancelled=check_cancelled)
    with storage_errors("build in", into):
        work = Path(tempfile.mkdtemp(prefix=WORK_PREFIX, dir=into))
    environment = go_environment(sources.environment) | {
        "GOOS": sources.target.os,
        "GOARCH": sources.target.arch,
        "GOTMPDIR": str(work),  # so that a killed build leaves nothing outside the cache
    }
    try:
        with storage_errors("build in", work):
            for file in ("go.mod", "go.sum"):
                if (project.lock / file).exists():
                    shutil.copyfile(project.lock / file, work / file)

        def run_go(arguments: Sequence[str], on_output: LineSink, on_error: LineSink) -> None:
            run(
                [go.executable, *arguments],
                cwd=work,
                environment=environment,
                on_output=on_output,
                on_error_line=on_error,
                check_cancelled=check_cancelled,
                what=f"go {arguments[0]} of {project.module}",
            )

        _fetch_modules(project, run_go, progress)
        flags = ["-trimpath", "-buildvcs=false", "-ldflags", " ".join(("-s", "-w", *project.ldflags))]
        packages = [binary.package for binary in binaries]
        stale = _stale_packages(flags, packages, run_go)
        what = f"{', '.join(binary.name for binary in binaries)} {project.version}"
        label = f"building {what} with {go}"
        progress(label, 0, len(stale))
        total = len(stale)

        def compiled(line: str) -> None:
            if line in stale:
                stale.remove(line)
                progress(label, total - len(stale), total)
                if not stale:
                    progress(f"linking {what}", None, None)

        run_go(["build", "-v", *flags, "-o", f"{work / 'bin'}/", *packages], ignore_line, compiled)
        return _collect(binaries, work / "bin", into), f"built from {project.module}@{project.version} with {go}"
    finally:
        remove_tree(work, below=into)


def _fetch_modules(project: Project, run_go: RunGo, progress: Progress) -> None:
    """Bring the modules into Go's module cache. Raises: BuildError, also with what the module proxy says."""
    total = len(_required_modules((project.lock / "go.mod").read_text()))
    if not total:
        return
    label = f"fetching the Go modules of {project.name} {project.version}"
    done = 0
    errors = []

    def output(line: str) -> None:
        # One indented JSON object per module, in the order they arrive.
        nonlocal done
        if line.startswith('\t"Path":'):
            done += 1
            progress(label, min(done, total), total)
        elif line.startswith('\t"Error":'):
            errors.append(str(json.loads("{" + line.rstrip(",") + "}")["Error"]))

    try:
        run_go(["mod", "download", "-json"], output, ignore_line)
    except BuildError as error:
        problem = error.diagnostics[0]
        raise BuildError(problem.summary, detail="\n".join([problem.detail, *errors[:3]]).strip()) from error


def _required_modules(go_mod: str) -> list[str]:
    """Lines of the `require` blocks."""
    lines = []
    inside = False
    for line in go_mod.splitlines():
        if inside and line.startswith(")"):
            inside = False
        elif inside and line.strip():
            lines.append(line.strip())
        elif line.startswith("require ("):
            inside = True
        elif line.startswith("require "):
            lines.append(line.removeprefix("require "))
    return lines


def _stale_packages(
    flags: Sequence[str],
    packages: Sequence[str],
    run_go: RunGo,
) -> set[str]:
    """The packages that this build compiles, because Go's cache does not hold them: the total of the progress."""
    stale = set()

    def output(line: str) -> None:
        name, state, why = line.split("|", 2)
        if state == "true" and why != _COMPILED:
            stale.add(name)

    run_go(
        ["list", "-deps", *flags, "-f", "{{.ImportPath}}|{{.Stale}}|{{.StaleReason}}", *packages], output, ignore_line
    )
    return stale


def _collect(binaries: Sequence[Binary], built: Path, into: Path) -> dict[str, Path]:
    arrived = {}
    with storage_errors("put the built binaries into", into):
        for binary in binaries:
            source = built / (binary.built_as or binary.name)
            if not source.exists():
                raise BuildError(f"go build made no {source.name}", detail=f"it was to become {binary.name}")
            arrived[binary.name] = into / f".{binary.name}.new"
            source.replace(arrived[binary.name])
    return arrived
