"""The shared cache: cheap to look at, never believed blindly, filled once however many runs want it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cinderctl.binaries.ensure import find
from cinderctl.binaries.listing import list_binaries
from cinderctl.binaries.stamps import State, check, read_stamp
from cinderctl.core.diagnostics import UsageError
from cinderctl.host.files import StorageError


@pytest.fixture
def cached(get, release):
    release.kubernetes("kubectl", b"the very file")
    path = get("kubectl")["kubectl"]
    release.requests.clear()
    return path


def test_what_is_cached_is_not_fetched_again(get, release, cached):
    assert get("kubectl")["kubectl"] == cached
    assert release.requests == []


def test_find_fetches_nothing_and_makes_nothing(release, sources):
    release.kubernetes("kubectl", b"x")
    assert find(["kubectl", "etcd"], sources, kubernetes_version="v1.36.3") == {}
    assert release.requests == []
    assert not sources.cache.exists()


@pytest.mark.parametrize("damage", ["changed", "cut", "no stamp", "bad stamp", "foreign stamp"])
def test_a_damaged_file_is_found_and_replaced(get, told, sources, cached, damage):
    stamp = cached.with_name("kubectl.json")
    match damage:
        case "changed":
            cached.write_bytes(b"the very fil!")
        case "cut":
            cached.write_bytes(b"the very")
        case "no stamp":
            stamp.unlink()
        case "bad stamp":
            stamp.write_text("{")
        case "foreign stamp":
            stamp.write_text('{"a": 1}')
    assert find(["kubectl"], sources, kubernetes_version="v1.36.3") == {}
    assert get("kubectl")["kubectl"].read_bytes() == b"the very file"
    assert any("is damaged" in message for message in told.messages)
    assert check(cached).state is State.READY


def test_a_copied_cache_is_hashed_once_and_believed(cached, sources):
    os.utime(cached, ns=(1, 1))
    assert find(["kubectl"], sources, kubernetes_version="v1.36.3") == {"kubectl": cached}
    stamp = read_stamp(cached)
    assert stamp is not None
    assert stamp.mtime == 1


def test_a_silent_change_shows_when_verified(cached, sources):
    status = cached.stat()
    cached.write_bytes(b"the very fil!")
    os.utime(cached, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert check(cached).state is State.READY
    (row,) = list_binaries(sources, kubernetes_version="v1.36.3", names=["kubectl"], verify=True)
    assert (row.state, row.detail) == ("corrupt", "its content is not what arrived (SHA-256 differs)")


def test_what_killed_runs_left_is_removed(get, release, sources):
    release.kubernetes("kubectl", b"x")
    directory = sources.cache / "kubernetes" / "v1.36.3" / "linux-amd64"
    (directory / ".build-dead" / "bin").mkdir(parents=True)
    (directory / ".kubelet.new").write_bytes(b"half")
    get("kubectl")
    assert sorted(p.name for p in directory.iterdir()) == [".lock", "kubectl", "kubectl.json"]


def test_runs_at_once_fetch_once(get, release, told):
    path = release.kubernetes("kubectl", b"x" * 1000)
    waiting = threading.Event()
    release.gate = lambda asked: waiting.wait(10) and None

    def other(message, done, total):
        told(message, done, total)
        if message.startswith("waiting for another run"):
            waiting.set()

    with ThreadPoolExecutor(4) as pool:
        results = [future.result() for future in [pool.submit(get, "kubectl", progress=other) for _ in range(4)]]
    assert len({result["kubectl"] for result in results}) == 1
    assert release.fetched(path) == 1
    assert "waiting for another run that is fetching kubernetes v1.36.3" in told.messages


def test_waiting_for_another_run_can_be_cancelled(get, release):
    release.kubernetes("kubectl", b"x")
    entered, leave = threading.Event(), threading.Event()

    def hold(asked):
        entered.set()
        leave.wait(10)

    release.gate = hold

    class StoppedError(Exception):
        pass

    def stop():
        raise StoppedError

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(get, "kubectl")
        assert entered.wait(10)
        with pytest.raises(StoppedError):
            get("kubectl", check_cancelled=stop)
        leave.set()
        assert first.result()


def test_a_cache_that_cannot_be_written_is_said(get, release, sources):
    release.kubernetes("kubectl", b"x")
    sources.cache.write_text("a file where the cache should be")
    with pytest.raises(StorageError, match="cannot"):
        get("kubectl")


@pytest.mark.parametrize("version", ["1.36", "latest", "v1.36.3/../../x", ""])
def test_half_versions_are_refused(get, version):
    with pytest.raises(UsageError, match="not a Kubernetes version"):
        get("kubectl", version=version)


def test_unknown_names_are_refused_with_the_known_ones(get):
    with pytest.raises(UsageError) as caught:
        get("kubectl", "kube-apisrver")
    assert caught.value.diagnostics[0].summary == "no such binary: kube-apisrver"
    assert "kube-apiserver" in caught.value.diagnostics[0].hint


def test_the_list_shows_what_is_asked_for_and_what_else_is_cached(get, release, sources):
    release.kubernetes("kubectl", b"new one")
    release.kubernetes("kubectl", b"old one", version="v1.35.1")
    get("kubectl")
    get("kubectl", version="v1.35.1")
    rows = list_binaries(sources, kubernetes_version="1.36.3", names=["kubectl", "etcd"])
    assert [(row.name, row.version, row.state, row.size, row.wanted) for row in rows] == [
        ("kubectl", "v1.36.3", "ready", 7, True),
        ("etcd", "v3.6.16", "absent", 0, True),
        ("kubectl", "v1.35.1", "ready", 7, False),
    ]
    assert rows[0].origin.startswith(release.url)
