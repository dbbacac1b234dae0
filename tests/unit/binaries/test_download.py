"""Downloads: what the publisher's checksum vouches for, or an error that says which URL failed and how."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
import time

import pytest

from cinderctl.binaries.download import Checksum, parse_checksum
from cinderctl.binaries.errors import UnavailableError
from cinderctl.binaries.stamps import read_stamp
from cinderctl.binaries.transport import proxy_for

CONTENT = os.urandom(900_000)


def reason(caught: pytest.ExceptionInfo[UnavailableError]) -> str:
    return next(line for line in caught.value.diagnostics[0].detail.splitlines() if line.startswith("download:"))


def test_a_plain_file_arrives_executable_with_its_origin(get, release, told, sources):
    path = release.kubernetes("kubectl", CONTENT)
    got = get("kubectl")["kubectl"]
    assert got == sources.cache / "kubernetes" / "v1.36.3" / "linux-amd64" / "kubectl"
    assert got.read_bytes() == CONTENT
    assert os.access(got, os.X_OK)
    stamp = read_stamp(got)
    assert stamp is not None
    assert stamp.origin == release.url + path
    assert stamp.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert told.lines[-1] == ("downloading kubectl v1.36.3", len(CONTENT), len(CONTENT))
    assert sorted(p.name for p in got.parent.iterdir()) == [".lock", "kubectl", "kubectl.json"]


def test_archives_give_their_one_binary(get, release):
    release.etcd(b"etcd itself")
    release.registry(b"registry itself")
    got = get("etcd", "registry")
    assert got["etcd"].read_bytes() == b"etcd itself"
    assert got["registry"].read_bytes() == b"registry itself"
    assert not list(got["etcd"].parent.glob(".*.part"))


def test_an_archive_without_the_binary_is_an_error(get, release):
    path = release.etcd(b"x")
    body = release.archive(path, "elsewhere/etcd", b"x")
    release.files[f"{path.rsplit('/', 1)[0]}/SHA256SUMS"] = hashlib.sha256(body).hexdigest().encode()
    with pytest.raises(UnavailableError) as caught:
        get("etcd")
    assert "in the archive" in reason(caught)


def test_any_version_can_be_downloaded(get, release):
    release.kubernetes("kubectl", b"older", version="v1.35.1")
    assert get("kubectl", version="1.35.1")["kubectl"].parent.parent.name == "v1.35.1"


def test_sha512_serves_where_no_sha256_is_published(get, release):
    release.kubernetes("kubectl", CONTENT, algorithm="sha512")
    assert get("kubectl")["kubectl"].read_bytes() == CONTENT


def test_without_a_checksum_nothing_is_taken(get, release):
    path = release.kubernetes("kubectl", CONTENT)
    del release.files[f"{path}.sha256"]
    with pytest.raises(UnavailableError) as caught:
        get("kubectl")
    assert "not published" in reason(caught)
    assert release.fetched(path) == 0


def test_a_corrupted_file_is_refused_and_not_kept(get, release, sources):
    path = release.kubernetes("kubectl", CONTENT)
    release.files[path] = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(UnavailableError) as caught:
        get("kubectl")
    assert "not the one that was published (sha256 differs)" in reason(caught)
    assert release.url + path in reason(caught)
    assert [p.name for p in sources.cache.rglob("*kubectl*")] == []


def test_a_file_that_is_not_there_is_named(get, release):
    with pytest.raises(UnavailableError) as caught:
        get("kubectl")
    assert f"404 ({release.url}/v1.36.3/bin/linux/amd64/kubectl.sha256)" in reason(caught)


def test_a_broken_transfer_is_continued_where_it_broke(get, release, told):
    path = release.kubernetes("kubectl", CONTENT)
    release.breaks[path] = [("cut", 300_000), ("cut", 300_000)]
    assert get("kubectl")["kubectl"].read_bytes() == CONTENT
    assert [asked for p, asked in release.requests if p == path] == ["", "bytes=300000-", "bytes=600000-"]
    assert any("continuing" in message for message in told.messages)


def test_a_server_without_ranges_starts_again(get, release):
    path = release.kubernetes("kubectl", CONTENT)
    release.breaks[path] = [("cut", 300_000)]
    release.ranges = False
    assert get("kubectl")["kubectl"].read_bytes() == CONTENT


def test_a_file_cut_short_each_time_is_given_up(get, release):
    path = release.kubernetes("kubectl", CONTENT)
    release.breaks[path] = [("cut", 300_000), ("cut", 0)]
    with pytest.raises(UnavailableError) as caught:
        get("kubectl")
    assert "ended before the file did" in reason(caught)


def test_a_stalled_transfer_is_continued(get, release):
    path = release.kubernetes("kubectl", CONTENT)
    release.breaks[path] = [("stall", 100_000)]
    assert get("kubectl")["kubectl"].read_bytes() == CONTENT


def test_a_server_that_stays_silent_is_given_up_quickly(get, release):
    path = release.kubernetes("kubectl", CONTENT)
    release.breaks[path] = [("stall", 0)]
    started = time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        get("kubectl")
    assert "stalled: nothing arrived for 0.3 s" in reason(caught)
    assert time.monotonic() - started < 2


def test_what_an_interrupted_run_got_is_continued_by_the_next(get, release):
    path = release.kubernetes("kubectl", CONTENT)

    stopped_at = []

    class StoppedError(Exception):
        pass

    def stop(message, done, total):
        if done and done >= 300_000:
            stopped_at.append(done)
            raise StoppedError

    with pytest.raises(StoppedError):
        get("kubectl", progress=stop)
    release.requests.clear()
    assert get("kubectl")["kubectl"].read_bytes() == CONTENT
    assert [asked for p, asked in release.requests if p == path] == [f"bytes={stopped_at[0]}-"]


@pytest.mark.parametrize("left", [b"of another file", CONTENT + b"too much"], ids=["wrong", "too long"])
def test_a_wrong_half_is_thrown_away(get, release, sources, left):
    release.kubernetes("kubectl", CONTENT)
    directory = sources.cache / "kubernetes" / "v1.36.3" / "linux-amd64"
    directory.mkdir(parents=True)
    (directory / ".kubectl.part").write_bytes(left)
    assert get("kubectl")["kubectl"].read_bytes() == CONTENT


def test_redirects_are_followed_and_do_not_circle(get, release):
    path = release.kubernetes("kubectl", CONTENT)
    release.files["/mirror/kubectl"] = release.files.pop(path)
    release.redirects[path] = "/mirror/kubectl"
    assert get("kubectl")["kubectl"].read_bytes() == CONTENT
    release.redirects["/v1.36.3/bin/linux/amd64/kubelet.sha256"] = "/v1.36.3/bin/linux/amd64/kubelet.sha256"
    with pytest.raises(UnavailableError) as caught:
        get("kubelet")
    assert "redirects" in reason(caught)


def test_an_unreachable_host_costs_one_attempt(get, sources, told):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    sources = dataclasses.replace(sources, base_urls={"kubernetes": f"http://127.0.0.1:{port}"})
    with pytest.raises(UnavailableError) as caught:
        get("kubectl", "kubelet", sources=sources)
    assert f"127.0.0.1:{port} is unreachable" in reason(caught)
    assert [m for m in told.messages if "unreachable" in m] == [f"no download: 127.0.0.1:{port} is unreachable"]


def test_the_proxy_of_the_environment_is_used(get, release, sources):
    release.kubernetes("kubectl", CONTENT)
    sources = dataclasses.replace(
        sources, base_urls={"kubernetes": "http://dl.invalid"}, environment={"HTTP_PROXY": release.url}
    )
    assert get("kubectl", sources=sources)["kubectl"].read_bytes() == CONTENT
    assert set(release.hosts) == {"dl.invalid"}


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "https_proxy": "http://q:2"}, "http://q:2"),
        ({"https_proxy": "p:1"}, "http://p:1"),
        ({"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "other, .k8s.io"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "k8s.io:8443"}, "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, ""),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "s.io"}, "http://p:1"),
    ],
)
def test_which_proxy(environment, proxy):
    assert proxy_for("https://dl.k8s.io/v1.36.3/x", environment) == proxy


def test_no_proxy_takes_networks():
    assert proxy_for("http://10.1.2.3/x", {"http_proxy": "http://p", "no_proxy": "10.0.0.0/8"}) == ""


def test_checksum_files():
    digest = "a" * 64
    assert parse_checksum(digest + "\n", "f") == Checksum("sha256", digest)
    assert parse_checksum(f"{'b' * 64}  ./g\n{digest.upper()} *f\n", "f") == Checksum("sha256", digest)
    assert parse_checksum("c" * 128, "f") == Checksum("sha512", "c" * 128)
    assert parse_checksum("<html>not found</html>", "f") is None
    assert parse_checksum(f"{digest}  other", "f") is None
