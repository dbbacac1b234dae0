"""Secrets stay secret wherever they are shown, and still show that they changed."""

from __future__ import annotations

import json
import pickle

import pytest

from cinderctl.core.address import Address
from cinderctl.core.values import SENSITIVE, Ref, Secret, map_leaves, redacted


@pytest.mark.parametrize("show", [str, repr, "{}".format, "{!r}".format, lambda s: f"{[s]}", lambda s: f"{ {'a': s} }"])
def test_a_secret_never_shows_its_value(show):
    assert "hunter2" not in show(Secret("hunter2"))
    assert SENSITIVE in show(Secret("hunter2"))


def test_a_secret_does_not_slip_into_json():
    with pytest.raises(TypeError):
        json.dumps({"password": Secret("hunter2")})


def test_secrets_compare_by_value():
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_a_secret_survives_the_way_into_a_worker():
    assert pickle.loads(pickle.dumps(Secret("a"))).reveal() == "a"


def test_redacted_keeps_the_shape_and_hides_every_secret():
    value = {"data": {"user": "me", "password": Secret("hunter2")}, "list": (Secret("x"), 1)}
    stored = redacted(value)
    assert "hunter2" not in json.dumps(stored)
    assert stored["data"]["user"] == "me"
    assert stored["data"]["password"].startswith(SENSITIVE)
    assert stored["list"][1] == 1


def test_redacted_tells_one_secret_from_another():
    assert redacted(Secret("old")) != redacted(Secret("new"))
    assert redacted(Secret("same")) == redacted(Secret("same"))


def test_map_leaves_copies_and_makes_lists_of_tuples():
    value = {"a": (1, {"b": 2}), 3: [4]}
    assert map_leaves(value, lambda leaf: leaf * 10) == {"a": [10, {"b": 20}], "3": [40]}
    assert value == {"a": (1, {"b": 2}), 3: [4]}


def test_an_empty_text_is_a_leaf_and_text_is_never_taken_apart():
    assert map_leaves(["", "ab"], lambda leaf: f"<{leaf}>") == ["<>", "<ab>"]


def test_a_reference_reads_as_address_and_output():
    assert str(Ref(Address("control_plane", "cinder"), "server")) == "control_plane.cinder.server"
