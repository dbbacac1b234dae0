"""Mirrors: entries of one file, each its own resource."""

from __future__ import annotations

import pytest

from cinderctl.core.address import Address
from cinderctl.host.files import read_json
from cinderctl.host.records import write_record
from cinderctl.resources.registry_mirror import RegistryMirrorInputs, RegistryMirrorKind
from tests.fakes.step import FakeStep

from .conftest import Life, everything_below

HUB = RegistryMirrorInputs(endpoints=("https://mirror.example", "https://other.example/v2"))
ALIAS = RegistryMirrorInputs(endpoints=("http://localhost:5000",), exclusive=True)


@pytest.fixture
def life(context):
    kind = RegistryMirrorKind(context)
    return lambda host: Life(kind, Address("registry_mirror", host))


def test_a_life(life, context):
    hub, alias = life("docker.io"), life("cinderegg:5000")
    assert not hub.exists()
    hub.create(HUB)
    alias.create(ALIAS)
    assert read_json(context.mirrors_file) == {
        "exclusive": ["cinderegg:5000"],
        "mirrors": {
            "cinderegg:5000": [{"url": "http://localhost:5000"}],
            "docker.io": [{"url": "https://mirror.example"}, {"url": "https://other.example/v2"}],
        },
    }
    assert hub.changed(HUB) == alias.changed(ALIAS) == []
    assert hub.discovered() == [alias.address, hub.address]

    want = RegistryMirrorInputs(endpoints=("https://new.example",))
    assert hub.changed(want) == ["endpoints"]
    hub.update(want)
    assert hub.changed(want) == alias.changed(ALIAS) == []

    hub.delete()
    assert not hub.exists()
    assert alias.changed(ALIAS) == []
    alias.delete()
    assert everything_below(context.home.state) == []


def test_what_is_no_alias_any_more_is_no_longer_exclusive(life, context):
    alias = life("cinderegg:5000")
    alias.create(ALIAS)
    want = RegistryMirrorInputs(endpoints=ALIAS.endpoints)
    assert alias.changed(want) == ["exclusive"]
    alias.update(want)
    assert read_json(context.mirrors_file)["exclusive"] == []


def test_an_edit_by_hand_is_seen(life, context):
    hub = life("docker.io")
    hub.create(HUB)
    context.mirrors_file.write_text('{"mirrors": {"docker.io": [{"url": "https://evil.example"}]}, "exclusive": []}')
    assert hub.changed(HUB) == ["endpoints"]
    context.mirrors_file.unlink()
    assert not hub.exists()
    hub.create(HUB)
    assert hub.changed(HUB) == []


def test_an_interrupted_create_is_taken_over(life, context):
    hub = life("docker.io")
    write_record(context.cluster.records, FakeStep.of(hub.address, HUB).record)
    assert not hub.exists()
    hub.create(HUB)
    assert hub.changed(HUB) == []
