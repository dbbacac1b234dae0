"""Upstream's binaries: the files belong to a cache, only the record is ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cinderctl.binaries.errors import UnavailableError
from cinderctl.binaries.sources import Sources
from cinderctl.core.address import Address
from cinderctl.resources.binaries import BinariesInputs, BinariesKind

from .conftest import Life, everything_below

VERSION = "v1.36.3"


def program(path: Path) -> Path:
    """A file that says it is of our version, as upstream's programs do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho Kubernetes {VERSION}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def own(tmp_path):
    """A directory of the user's own, with the programs in it."""
    for name in ("kube-apiserver", "kube-scheduler", "kubectl"):
        program(tmp_path / "own" / name)
    return tmp_path / "own"


@pytest.fixture
def kubernetes(context):
    sources = Sources(cache=context.home.cache, allow_download=False, allow_build=False)
    return Life(BinariesKind(context, sources), Address("binaries", "kubernetes"))


@pytest.fixture
def want(own):
    return BinariesInputs(kubernetes_version=VERSION, names=("kube-apiserver", "kubectl"), directory=str(own))


def test_a_life(kubernetes, want, own, context):
    assert not kubernetes.exists()
    outputs = kubernetes.create(want)
    assert outputs == {
        "kube-apiserver": str(own / "kube-apiserver"),
        "kubectl": str(own / "kubectl"),
        "directory": str(own),
    }
    assert kubernetes.changed(want) == []
    assert kubernetes.observe().outputs == outputs
    assert kubernetes.discovered() == [kubernetes.address]

    more = replace(want, names=(*want.names, "kube-scheduler"))
    assert kubernetes.changed(more) == ["names"]
    kubernetes.update(more)
    assert kubernetes.changed(more) == []

    kubernetes.delete()
    assert not kubernetes.exists()
    assert everything_below(context.home.state) == []
    assert (own / "kubectl").exists()


def test_a_binary_that_is_gone_is_seen(kubernetes, want, own):
    kubernetes.create(want)
    (own / "kubectl").unlink()
    assert kubernetes.changed(want) == ["names"]
    assert dict(kubernetes.observe().outputs) == {"kube-apiserver": str(own / "kube-apiserver")}


def test_what_cannot_be_had_is_an_error_and_nothing_is_recorded(kubernetes, want, context):
    with pytest.raises(UnavailableError):
        kubernetes.create(replace(want, names=("etcd",), directory=""))
    assert not kubernetes.exists()
