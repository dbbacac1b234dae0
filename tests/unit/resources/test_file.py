"""Files of the spec: below the cluster's own directory and nowhere else."""

from __future__ import annotations

import stat

import pytest

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError
from cinderctl.core.digest import sha256_of
from cinderctl.engine.kinds import Existence
from cinderctl.host.records import write_record
from cinderctl.resources.file import FileInputs, FileKind
from tests.fakes.step import FakeStep

from .conftest import Life, everything_below

ONE, TWO = b"one\n", b"two\n"
WANT = FileInputs(path="/etc/app/settings.yaml", digest=sha256_of(ONE))


@pytest.fixture
def life(context):
    kind = FileKind(context, {sha256_of(data): data for data in (ONE, TWO)})
    return lambda path: Life(kind, Address("file", path))


@pytest.fixture
def settings(life):
    return life("/etc/app/settings.yaml")


def test_a_life(settings, context):
    assert not settings.exists()
    settings.create(WANT)
    path = context.cluster.files / "etc/app/settings.yaml"
    assert path.read_bytes() == ONE
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert settings.changed(WANT) == []
    assert settings.discovered() == [settings.address]

    want = FileInputs(path=WANT.path, digest=sha256_of(TWO), permissions="0600")
    assert settings.changed(want) == ["digest", "permissions"]
    settings.update(want)
    assert path.read_bytes() == TWO
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert settings.changed(want) == []

    settings.delete()
    assert not settings.exists()
    assert everything_below(context.home.state) == []
    assert not (context.cluster.files / "etc").exists()


def test_deleting_one_file_keeps_its_neighbours(settings, life, context):
    other = life("/etc/app/other")
    settings.create(WANT)
    other.create(FileInputs(path="/etc/app/other", digest=sha256_of(TWO)))
    settings.delete()
    assert everything_below(context.cluster.files) == ["etc/app/other"]


def test_an_edit_by_hand_is_seen(settings, context):
    settings.create(WANT)
    path = context.cluster.files / "etc/app/settings.yaml"
    path.write_bytes(b"edited")
    path.chmod(0o600)
    assert settings.changed(WANT) == ["digest", "permissions"]
    path.unlink()
    assert not settings.exists()


def test_an_interrupted_create_is_taken_over(settings, context):
    """The record came to disk, the file did not."""
    write_record(context.cluster.records, FakeStep.of(settings.address, WANT).record)
    assert settings.observe().existence is Existence.ABSENT
    settings.create(WANT)
    assert settings.changed(WANT) == []


@pytest.mark.parametrize("path", ["/", "/../escape", "/etc/../../escape", "/etc/.."])
def test_no_path_leads_out_of_the_directory(path, life, context):
    with pytest.raises(CinderError, match="not a file path"):
        life("x").create(FileInputs(path=path, digest=sha256_of(ONE)))
    assert not (context.cluster.files.parent / "escape").exists()
