"""One run at a time, and who it is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from cinderctl.core.diagnostics import CinderError, LockedError
from cinderctl.engine.lock import Lock, is_owner_alive, lock_owner, this_process

HOLDER = """
import sys; sys.path[:0] = {path!r}
from pathlib import Path
from cinderctl.engine.lock import Lock
lock = Lock.acquire(Path({lock!r}), command="cinderctl apply")
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cluster" / "lock"


@pytest.fixture
def holder(path):
    """Another process that holds the lock until told to end, or killed."""
    code = HOLDER.format(path=[entry for entry in sys.path if entry], lock=str(path))
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_another_process_is_kept_out_and_told_who_holds_it(path, holder):
    with pytest.raises(LockedError) as caught:
        Lock.acquire(path)
    assert caught.value.exit_code == 6
    assert f"process {holder.pid}" in caught.value.diagnostics[0].detail
    assert "cinderctl apply" in caught.value.diagnostics[0].detail


def test_waiting_tells_whom_it_waits_for_and_gets_the_lock(path, holder):
    waited = []

    def on_wait(owner):
        waited.append(owner.pid)
        holder.stdin.write(b"\n")
        holder.stdin.flush()

    with Lock.acquire(path, timeout=20, on_wait=on_wait) as lock:
        assert waited == [holder.pid]
        assert lock.path == path


def test_waiting_ends(path, holder):
    began = time.monotonic()
    with pytest.raises(LockedError, match=r"after waiting 0\.2 s"):
        Lock.acquire(path, timeout=0.2)
    assert time.monotonic() - began < 5


def test_the_lock_of_a_killed_process_is_free_and_the_next_run_is_told(path, holder):
    holder.kill()
    holder.wait()
    with Lock.acquire(path) as lock:
        assert lock.broken is not None
        assert lock.broken.pid == holder.pid
    with Lock.acquire(path) as lock:
        assert lock.broken is None


def test_release_forgets_the_owner_and_keeps_the_file(path):
    lock = Lock.acquire(path, command="x")
    assert lock_owner(path).command == "x"
    lock.release()
    lock.release()
    assert lock_owner(path) is None
    assert path.exists()


def test_files_are_for_the_owner_only(path):
    with Lock.acquire(path):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.with_name("lock.info").stat().st_mode & 0o777 == 0o600


def test_a_reused_pid_is_not_the_owner():
    owner = this_process()
    assert is_owner_alive(owner)
    assert not is_owner_alive(replace(owner, started="1"))
    assert not is_owner_alive(replace(owner, boot="another boot"))
    assert is_owner_alive(replace(owner, host="elsewhere", pid=1, started="1")), "nothing is proved of another host"


def test_damaged_information_decides_nothing(path):
    path.parent.mkdir()
    path.with_name("lock.info").write_text("{not json")
    with Lock.acquire(path) as lock:
        assert lock.broken is None
        assert json.loads(path.with_name("lock.info").read_text()) == asdict(lock_owner(path))


def test_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CinderError, match="cannot make the lock"):
        Lock.acquire(tmp_path / "file" / "lock")
