"""A record comes back from the world as it was written, and nothing else is taken for one."""

from __future__ import annotations

import json

import pytest

from cinderctl.core.address import Address
from cinderctl.core.digest import digest_of
from cinderctl.core.record import Record

NODE = Address("wasm_node", "cinder-wasi")
PLANE = Address("control_plane", "cinder")


@pytest.mark.parametrize("protect", [False, True])
def test_it_comes_back_as_it_was_written(protect):
    record = Record("cinder", NODE, {"port": 3000, "labels": {"a": "b"}}, (PLANE,), protect)
    assert Record.from_json(record.to_json()) == record
    assert Record.from_json(record.to_json().encode()) == record


def test_the_digest_is_that_of_the_inputs():
    assert Record("cinder", NODE, {"port": 3000}).digest == digest_of({"port": 3000})


def test_a_digest_that_was_written_is_not_made_anew():
    written = json.loads(Record("cinder", NODE, {"port": 3000}).to_json()) | {"digest": "sha256:of-then"}
    assert Record.from_json(json.dumps(written)).digest == "sha256:of-then"


def test_the_text_does_not_depend_on_the_order_of_the_inputs():
    assert Record("c", NODE, {"a": 1, "b": 2}).to_json() == Record("c", NODE, {"b": 2, "a": 1}).to_json()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "null",
        "[]",
        '"text"',
        "{}",
        '{"cluster":"c","address":"nodot","inputs":{},"dependsOn":[],"digest":"x"}',
        '{"cluster":"c","address":"a.b","inputs":7,"dependsOn":[],"digest":"x"}',
        '{"cluster":"c","address":"a.b","inputs":{},"dependsOn":[3],"digest":"x"}',
        '{"cluster":"c","address":"a.b","inputs":{},"dependsOn":null,"digest":"x"}',
        b"\xff\xfe",
    ],
)
def test_anything_else_is_a_value_error(text):
    with pytest.raises(ValueError, match=r".*"):
        Record.from_json(text)
