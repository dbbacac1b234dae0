"""The user's own directory comes first, and what is in it is meant."""

from __future__ import annotations

import pytest

from cinderctl.binaries.catalog import PROJECTS
from cinderctl.binaries.ensure import find
from cinderctl.binaries.errors import BinaryError, VersionMismatchError
from cinderctl.binaries.listing import list_binaries

from .conftest import program


def test_it_is_used_where_it_stands(get, release, sources, tmp_path):
    mine = program(tmp_path / "mine" / "kube-apiserver", "Kubernetes v1.36.3")
    got = get("kube-apiserver", sources=sources.with_directory(str(mine.parent)))
    assert got == {"kube-apiserver": mine}
    assert release.requests == []


def test_what_it_lacks_comes_from_elsewhere(get, release, sources, tmp_path):
    mine = program(tmp_path / "mine" / "kube-apiserver", "Kubernetes v1.36.3")
    release.kubernetes("kubectl", b"x")
    got = get("kube-apiserver", "kubectl", sources=sources.with_directory(mine.parent))
    assert got["kube-apiserver"] == mine
    assert got["kubectl"].is_relative_to(sources.cache)


def test_a_directory_that_is_not_there_is_not_passed_over(get, sources, tmp_path):
    with pytest.raises(BinaryError, match="no such directory"):
        get("kubectl", sources=sources.with_directory(tmp_path / "typo"))


def test_another_kubernetes_version_is_an_error_that_says_so(get, release, sources, tmp_path):
    mine = program(tmp_path / "mine" / "kube-apiserver", "Kubernetes v1.34.0")
    release.kubernetes("kube-apiserver", b"x")
    sources = sources.with_directory(mine.parent)
    with pytest.raises(VersionMismatchError) as caught:
        get("kube-apiserver", sources=sources)
    problem = caught.value.diagnostics[0]
    assert problem.detail == f"{mine}: it reports v1.34.0, wanted is v1.36.3"
    assert "kubernetesVersion" in problem.hint
    assert find(["kube-apiserver"], sources, kubernetes_version="v1.36.3") == {}
    (row,) = list_binaries(sources, kubernetes_version="v1.36.3", names=["kube-apiserver"])
    assert (row.version, row.state) == ("v1.34.0", "wrong version")


def test_etcd_of_the_same_line_is_as_good(get, sources, tmp_path):
    major, minor, _ = PROJECTS["etcd"].version.removeprefix("v").split(".")
    mine = program(tmp_path / "mine" / "etcd", f"etcd Version: {major}.{minor}.0")
    assert get("etcd", sources=sources.with_directory(mine.parent)) == {"etcd": mine}


def test_etcd_of_another_line_is_not(get, sources, tmp_path):
    mine = program(tmp_path / "mine" / "etcd", "etcd Version: 3.4.0")
    with pytest.raises(VersionMismatchError, match="other versions"):
        get("etcd", sources=sources.with_directory(mine.parent))


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("fails", "it did not tell its version (exit 3)"),
        ("silent", "it did not tell its version (exit 0)"),
        ("foreign", "it does not run here"),
        ("plain", "it is not an executable file"),
    ],
)
def test_a_file_that_does_not_run_is_named(get, sources, tmp_path, how, why):
    mine = program(
        tmp_path / "mine" / "kubectl", "Client Version: v1.36.3" if how == "fails" else "hello", 3 * (how == "fails")
    )
    if how == "foreign":
        mine.write_bytes(b"\x7fELF of another machine")
    if how == "plain":
        mine.chmod(0o644)
    with pytest.raises(VersionMismatchError) as caught:
        get("kubectl", sources=sources.with_directory(mine.parent))
    assert why in caught.value.diagnostics[0].detail


def test_the_version_is_asked_once_until_the_file_changes(get, sources, tmp_path):
    calls = tmp_path / "calls"
    mine = program(tmp_path / "mine" / "kubectl", "Client Version: v1.36.3")
    mine.write_text(mine.read_text().replace("echo", f"echo x >> {calls}; echo"))
    sources = sources.with_directory(mine.parent)
    for _ in range(3):
        get("kubectl", sources=sources)
    assert calls.read_text().count("x") == 1
    mine.write_text(mine.read_text() + "# changed\n")
    get("kubectl", sources=sources)
    assert calls.read_text().count("x") == 2
