"""The catalogue and the locks agree, and the addresses are the publishers'."""

from __future__ import annotations

import re

import pytest

from cinderctl.binaries.catalog import BINARIES, DEFAULT, PROJECTS, binaries_named, host_target, normal_version
from cinderctl.binaries.sources import Sources
from cinderctl.binaries.toolchain import required_version


@pytest.mark.parametrize("project", PROJECTS.values(), ids=lambda project: project.name)
def test_each_lock_pins_its_project_by_hash(project):
    go_mod = (project.lock / "go.mod").read_text()
    go_sum = (project.lock / "go.sum").read_text()
    assert f"{project.module} {project.version} " in go_mod
    assert f"{project.module} {project.version} h1:" in go_sum
    assert required_version(project.lock) >= (1, 26)
    commands = {binary.package for binary in BINARIES.values() if binary.project is project}
    tools = re.findall(r"^(?:tool |\t)(\S+/\S+)$", go_mod, re.MULTILINE)
    assert commands == set(tools)


def test_every_module_of_a_lock_has_its_hash():
    for project in PROJECTS.values():
        summed = {tuple(line.split()[:2]) for line in (project.lock / "go.sum").read_text().splitlines()}
        for line in (project.lock / "go.sum").read_text().splitlines():
            assert re.fullmatch(r"\S+ v\S+ h1:[A-Za-z0-9+/]{43}=", line)
        assert len(summed) > 60


def test_the_locks_are_files_of_the_package():
    for project in PROJECTS.values():
        assert project.lock.is_dir()
        assert project.lock.parent.parent.name == "binaries"


def test_official_addresses(tmp_path):
    sources = Sources(tmp_path)
    assert {name: sources.base_url(project) for name, project in PROJECTS.items()} == {
        "kubernetes": "https://dl.k8s.io",
        "etcd": "https://github.com/etcd-io/etcd/releases/download",
        "registry": "https://github.com/distribution/distribution/releases/download",
        "kwok": "",
    }


def test_the_default_set_is_what_a_cluster_of_processes_needs():
    assert [binary.name for binary in binaries_named(DEFAULT)] == [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubectl",
        "registry",
    ]
    assert len(binaries_named(["etcd", "etcd"])) == 1


def test_words():
    assert normal_version("1.36.3") == normal_version("v1.36.3") == "v1.36.3"
    assert normal_version("v1.37.0-rc.1") == "v1.37.0-rc.1"
    assert re.fullmatch(r"(linux|darwin)-(amd64|arm64|\w+)", str(host_target()))
