"""Processes that outlive us, are never mistaken for others, and never run unrecorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cinderctl.host.files import StorageError, ensure_dir
from cinderctl.host.identity import MARK, Identity, find_marked, identity_of, is_alive
from cinderctl.host.process import ProcessError, reap, spawn, terminate

ENV = {"PATH": os.environ["PATH"]}


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.005)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Identity]]:
    running: list[Identity] = []

    def start(script: str, **options: object) -> Identity:
        environment = {**ENV, **options.pop("env", {})}  # type: ignore[dict-item]
        identity = spawn(
            ["sh", "-c", script],
            env=environment,
            cwd=tmp_path,
            log=tmp_path / "logs/x.log",
            **options,  # type: ignore[arg-type]
        )
        running.append(identity)
        return identity

    yield start
    for identity in running:
        terminate(identity, grace=0)


def test_a_started_process_is_its_own_session_and_logs(tmp_path: Path, started: Callable[..., Identity]) -> None:
    log = tmp_path / "logs/x.log"
    identity = started('echo "$GREETING"; echo oops >&2; cat; pwd; exec sleep 60', env={"GREETING": "hello"})
    until(lambda: log.exists() and len(log.read_text().splitlines()) == 3)
    assert log.read_text().splitlines() == ["hello", "oops", str(tmp_path)]
    assert is_alive(identity)
    assert os.getsid(identity.pid) == identity.pid != os.getsid(0)
    assert Identity.from_json(identity.to_json()) == identity


def test_limits_and_niceness_apply(tmp_path: Path, started: Callable[..., Identity]) -> None:
    started("ulimit -S -n; nice; exec sleep 60", nofile=64, nice=5)
    log = tmp_path / "logs/x.log"
    until(lambda: len(log.read_text().split()) == 2)
    assert log.read_text().split() == ["64", str(os.nice(0) + 5)]


def test_nothing_runs_when_its_identity_cannot_be_recorded(tmp_path: Path) -> None:
    seen: list[Identity] = []

    def record(identity: Identity) -> None:
        seen.append(identity)
        assert is_alive(identity)
        raise StorageError("write", tmp_path, OSError(28, "No space left on device"))

    argv = ["sh", "-c", f"touch {tmp_path}/ran"]
    with pytest.raises(StorageError):
        spawn(argv, env=ENV, cwd=tmp_path, log=tmp_path / "log", record=record)
    assert not is_alive(seen[0])
    assert not (tmp_path / "ran").exists()


def python(script: str, *arguments: object) -> None:
    """Run a script in an interpreter of its own, whatever its end."""
    subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=False, timeout=20)


def test_nothing_runs_when_we_are_killed_before_it_is_recorded(tmp_path: Path) -> None:
    """SIGKILL in the moment between spawning and recording."""
    script = """
import os, pathlib, signal, sys
from cinderctl.host.process import spawn

def record(identity):
    (folder / "pid").write_text(str(identity.pid))
    os.kill(os.getpid(), signal.SIGKILL)

folder = pathlib.Path(sys.argv[1])
spawn(["touch", str(folder / "ran")], env=dict(os.environ), cwd=folder, log=folder / "log", record=record)
"""
    python(script, tmp_path)
    pid = int((tmp_path / "pid").read_text())
    until(lambda: identity_of(pid, "") is None)
    assert not (tmp_path / "ran").exists()


def test_a_process_outlives_its_parent(tmp_path: Path) -> None:
    script = """
import json, os, pathlib, sys
from cinderctl.host.process import spawn

folder = pathlib.Path(sys.argv[1])
identity = spawn(["sleep", "60"], env=dict(os.environ), cwd=folder, log=folder / "log")
(folder / "identity").write_text(json.dumps(identity.to_json()))
"""
    python(script, tmp_path)
    identity = Identity.from_json(json.loads((tmp_path / "identity").read_text()))
    assert is_alive(identity)
    terminate(identity, grace=5)
    assert not is_alive(identity)


def test_a_reused_pid_is_neither_believed_nor_killed(started: Callable[..., Identity]) -> None:
    identity = started("exec sleep 60")
    for forged in (replace(identity, started=identity.started - 100), replace(identity, boot="another boot")):
        assert not is_alive(forged)
        terminate(forged, grace=0)
    assert is_alive(identity)


def test_a_zombie_is_dead(started: Callable[..., Identity]) -> None:
    identity = started("exit 3")
    until(lambda: not is_alive(identity))
    assert reap(identity) == "exit 3"
    assert reap(identity) == "exit unknown"


def test_terminate_asks_first(tmp_path: Path, started: Callable[..., Identity]) -> None:
    identity = started("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done")
    log = tmp_path / "logs/x.log"
    until(lambda: "up" in log.read_text())
    terminate(identity, grace=5)
    assert "bye" in log.read_text()
    terminate(identity, grace=5)


def test_terminate_takes_the_group_and_does_not_wait_forever(tmp_path: Path, started: Callable[..., Identity]) -> None:
    identity = started("trap '' TERM; sleep 61 & echo $!; wait; sleep 62")
    log = tmp_path / "logs/x.log"
    until(lambda: log.read_text().strip())
    grandchild = identity_of(int(log.read_text()), "")
    assert grandchild is not None
    waits: list[int] = []
    terminate(identity, grace=0.15, on_wait=lambda: waits.append(1))
    assert not is_alive(identity)
    until(lambda: not is_alive(grandchild))
    assert waits


def test_terminate_sweeps_what_a_dead_leader_left(tmp_path: Path, started: Callable[..., Identity]) -> None:
    identity = started("sleep 63 & echo $!")
    log = tmp_path / "logs/x.log"
    until(lambda: not is_alive(identity))
    orphan = identity_of(int(log.read_text()), "")
    assert orphan is not None
    terminate(identity, grace=0)
    until(lambda: not is_alive(orphan))


def test_a_missing_program_or_directory_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="no such program"):
        spawn([str(tmp_path / "nothing")], env=ENV, cwd=tmp_path, log=tmp_path / "log")
    with pytest.raises(ProcessError, match="is no directory"):
        spawn(["sleep", "1"], env=ENV, cwd=tmp_path / "nowhere", log=tmp_path / "log")
    ensure_dir(tmp_path / "logdir")
    with pytest.raises(StorageError, match="cannot open the log"):
        spawn(["sleep", "1"], env=ENV, cwd=tmp_path, log=tmp_path / "logdir")


def test_no_descriptor_leaks(tmp_path: Path) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    for argv in (["true"], [sys.executable, "--version"]):
        terminate(spawn(argv, env=ENV, cwd=tmp_path, log=tmp_path / "log"), grace=1)
    with pytest.raises(ProcessError):
        spawn(["no-such-program"], env=ENV, cwd=tmp_path, log=tmp_path / "log")
    assert count() == before


def test_a_marked_process_is_found_without_its_record(tmp_path: Path, started: Callable[..., Identity]) -> None:
    identity = started("sleep 64 & exec sleep 65", env={MARK: f"{tmp_path}#etcd"})
    until((tmp_path / "logs/x.log").exists)
    started("exec sleep 66", env={MARK: f"{tmp_path}/other#etcd"})
    until(lambda: "etcd" in find_marked(str(tmp_path)))
    found = find_marked(str(tmp_path))
    assert {name: (one.pid, one.started) for name, one in found.items()} == {"etcd": (identity.pid, identity.started)}


@pytest.mark.parametrize("value", [None, {}, {"pid": -1, "started": 1, "command": ""}, {"pid": "x"}, 7])
def test_a_damaged_identity_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"not a process identity|invalid literal"):
        Identity.from_json(value)
