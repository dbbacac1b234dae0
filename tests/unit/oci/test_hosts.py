"""Mirrors are asked in order, the registry itself last; plain http only where said, or on loopback."""

import json
from pathlib import Path

import pytest

from cinderctl.oci.errors import MirrorsFileError
from cinderctl.oci.hosts import Endpoint, Hosts, HostsFile, is_loopback_host, load_hosts, upstream

MIRROR = Endpoint("https://mirror.example")


@pytest.mark.parametrize(
    ("registry", "base"),
    [
        ("docker.io", "https://registry-1.docker.io/v2"),
        ("ghcr.io", "https://ghcr.io/v2"),
        ("r.example:5000", "https://r.example:5000/v2"),
        ("localhost:5000", "http://localhost:5000/v2"),
        ("localhost", "http://localhost/v2"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
        ("127.9.9.9", "http://127.9.9.9/v2"),
        ("[::1]:5000", "http://[::1]:5000/v2"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000/v2"),
        ("localhost.example", "https://localhost.example/v2"),
    ],
)
def test_a_registry_is_https_unless_it_is_on_loopback(registry: str, base: str) -> None:
    assert upstream(registry).base == base


def test_mirrors_come_first_then_the_registry() -> None:
    hosts = Hosts({"docker.io": (MIRROR,), "_default": (Endpoint("https://cache.example"),)})
    assert [e.url for e in hosts.endpoints_for("docker.io")] == [MIRROR.url, "https://registry-1.docker.io"]
    assert [e.url for e in hosts.endpoints_for("ghcr.io")] == ["https://cache.example", "https://ghcr.io"]


def test_an_entry_without_endpoints_switches_the_default_off() -> None:
    hosts = Hosts({"ghcr.io": (), "_default": (MIRROR,)})
    assert [e.url for e in hosts.endpoints_for("ghcr.io")] == ["https://ghcr.io"]


def test_an_exclusive_registry_is_only_its_mirrors() -> None:
    hosts = Hosts({"cinderegg:5000": (Endpoint("http://localhost:5000"),)}, frozenset({"cinderegg:5000", "alone"}))
    assert [e.url for e in hosts.endpoints_for("cinderegg:5000")] == ["http://localhost:5000"]
    assert hosts.push_endpoint("cinderegg:5000").url == "http://localhost:5000"
    assert [e.url for e in hosts.endpoints_for("alone")] == ["https://alone"]


def test_a_registry_that_is_its_own_mirror_is_asked_once_and_writes_go_to_it() -> None:
    own = Endpoint("http://localhost:5000")
    hosts = Hosts({"localhost:5000": (own,), "docker.io": (MIRROR,)})
    assert hosts.endpoints_for("localhost:5000") == (own,)
    assert hosts.push_endpoint("docker.io").url == "https://registry-1.docker.io"


@pytest.mark.parametrize(
    ("endpoint", "base"),
    [
        (Endpoint("https://m.example/"), "https://m.example/v2"),
        (Endpoint("https://m.example/v2/"), "https://m.example/v2"),
        (Endpoint("https://m.example/proxy"), "https://m.example/proxy/v2"),
        (Endpoint("https://m.example/v2/proxy", override_path=True), "https://m.example/v2/proxy"),
    ],
)
def test_the_prefix_of_requests(endpoint: Endpoint, base: str) -> None:
    assert endpoint.base == base


def test_only_loopback_names_are_loopback() -> None:
    assert is_loopback_host("app.localhost:80")
    assert not is_loopback_host("[::1")
    assert not is_loopback_host("0.0.0.0:5000")


def test_the_mirrors_file_reads_back_as_written(tmp_path: Path) -> None:
    hosts = Hosts(
        {"docker.io": (MIRROR, Endpoint("http://b", True, "/ca", "/crt", "/key")), "_default": ()},
        frozenset({"docker.io"}),
    )
    path = tmp_path / "mirrors.json"
    path.write_text(json.dumps(hosts.to_json()))
    assert load_hosts(path) == hosts


def test_no_mirrors_file_means_no_mirrors(tmp_path: Path) -> None:
    assert load_hosts(tmp_path / "none.json") == Hosts()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "Expecting value"),
        ("{", "Expecting"),
        ("\xff", "utf-8"),
        ("[]", "mirrors"),
        ('{"mirrors": []}', "mirrors"),
        ('{"mirror": {}}', "`mirror`"),
        ('{"mirrors": {"a": {}}}', "mirrors.a"),
        ('{"mirrors": {"a": ["http://b"]}}', "mirrors.a"),
        ('{"mirrors": {"a": [{"url": "b"}]}}', "no http or https URL"),
        ('{"mirrors": {"a": [{"url": "ftp://b"}]}}', "no http or https URL"),
        ('{"mirrors": {"a": [{"url": "http://u:p@b"}]}}', "user"),
        ('{"mirrors": {"a": [{"url": "http://b:port"}]}}', "mirrors.a"),
        ('{"mirrors": {"a": [{"url": "http://b", "x": 1}]}}', "`x`"),
        ('{"mirrors": {"a": [{"url": "http://b", "overridePath": "yes"}]}}', "overridePath"),
        ('{"mirrors": {"a": [{"url": "http://b", "ca": 1}]}}', "`ca`"),
        ('{"exclusive": "a"}', "exclusive"),
    ],
)
def test_a_corrupt_mirrors_file_is_an_error_that_says_where(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "mirrors.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(MirrorsFileError) as caught:
        load_hosts(path)
    assert str(path) in str(caught.value)
    assert word in caught.value.diagnostics[0].detail


def test_an_edited_mirrors_file_is_used_at_the_next_call_and_an_unchanged_one_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mirrors.json"
    reads: list[Path] = []

    def load(path: Path) -> Hosts:
        reads.append(path)
        return load_hosts(path)

    hosts = HostsFile(path, load)
    assert hosts() == hosts() == Hosts()
    assert len(reads) == 1
    fresh = tmp_path / "new.json"
    fresh.write_text(json.dumps(Hosts({"a": (MIRROR,)}).to_json()))
    fresh.replace(path)
    assert hosts().mirrors_of("a") == (MIRROR,)
    hosts()
    assert len(reads) == 2
    path.unlink()
    assert hosts() == Hosts()
