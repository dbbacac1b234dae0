"""What of a live object counts: that which the spec says, in the spec's shape."""

from __future__ import annotations

import pytest

from cinderctl.core.values import Secret
from cinderctl.resources.objects import project, revealed


@pytest.mark.parametrize(
    ("want", "live", "seen"),
    [
        pytest.param({"a": 1}, {"a": 1, "b": 2}, {"a": 1}, id="server defaults are no drift"),
        pytest.param({"a": {"b": 1}}, {"a": {"b": 2, "c": 3}}, {"a": {"b": 2}}, id="nested, a changed value is seen"),
        pytest.param({"a": 1, "b": 2}, {"a": 1}, {"a": 1}, id="what is gone is not there"),
        pytest.param({"a": None}, {"a": 5, "b": 1}, {"a": None}, id="null asks for nothing"),
        pytest.param(
            {"metadata": {"creationTimestamp": None}},
            {"metadata": {}},
            {"metadata": {"creationTimestamp": None}},
            id="null that is not there",
        ),
        pytest.param(
            {"env": [{"name": "A", "value": ""}]},
            {"env": [{"name": "A"}]},
            {"env": [{"name": "A", "value": ""}]},
            id="an empty value is left out by the server",
        ),
        pytest.param({"hostNetwork": False, "args": []}, {}, {"hostNetwork": False, "args": []}, id="zero values"),
        pytest.param({"replicas": 0}, {"replicas": 1}, {"replicas": 1}, id="a zero that became something is seen"),
        pytest.param({"data": {"a": ""}}, {"data": {}}, {"data": {}}, id="an empty key of the user's own that is gone"),
        pytest.param({"labels": {"a": ""}}, {"labels": {}}, {"labels": {}}, id="an empty label that is gone"),
        pytest.param(
            {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
            {"limits": {"cpu": "500m", "memory": "1Gi"}},
            {"limits": {"cpu": 0.5, "memory": "1024Mi"}},
            id="equal quantities",
        ),
        pytest.param(
            {"requests": {"storage": "1Gi"}},
            {"requests": {"storage": "2Gi"}},
            {"requests": {"storage": "2Gi"}},
            id="another quantity is seen",
        ),
        pytest.param({"version": "1.0"}, {"version": "1"}, {"version": "1"}, id="a number elsewhere is no quantity"),
        pytest.param({"max": 3}, {"max": 3}, {"max": 3}, id="a plain number is one"),
        pytest.param({}, {"a": 1}, {}, id="an empty map asks for nothing"),
        pytest.param({"a": {"b": 1}}, {"a": "text"}, {"a": "text"}, id="another type is seen as it is"),
        pytest.param({"a": [1]}, {"a": {"b": 1}}, {"a": {"b": 1}}, id="a map where a list should be"),
        pytest.param([1, 2], [1, 3], [1, 3], id="lists of scalars by place"),
        pytest.param([1, 2], [1, 2, 3], [1, 2, 3], id="one more is seen"),
        pytest.param([1, 2], [1], [1], id="one less is seen"),
        pytest.param([{"x": 1}], [{"x": 1, "y": 2}], [{"x": 1}], id="lists of maps without names by place"),
        pytest.param(
            [{"x": 1}], [{"x": 1, "y": 2}, {"x": 3}], [{"x": 1, "y": 2}, {"x": 3}], id="lengths differ: all of it"
        ),
        pytest.param(
            [{"name": "b", "x": 1}, {"name": "a"}],
            [{"name": "a", "y": 1}, {"name": "b", "x": 1, "y": 2}],
            [{"name": "b", "x": 1}, {"name": "a"}],
            id="by name, whatever the order",
        ),
        pytest.param(
            [{"name": "a"}],
            [{"name": "a", "y": 1}, {"name": "injected", "y": 2}],
            [{"name": "a"}, {"name": "injected", "y": 2}],
            id="by name, one more is seen whole",
        ),
        pytest.param([{"name": "a"}, {"name": "b"}], [{"name": "b"}], [{"name": "b"}], id="by name, one less"),
        pytest.param(
            [{"name": "a", "x": 1}, {"name": "a", "x": 2}],
            [{"name": "a", "x": 1, "y": 0}, {"name": "a", "x": 2, "y": 0}],
            [{"name": "a", "x": 1}, {"name": "a", "x": 2}],
            id="names that are not unique: by place",
        ),
        pytest.param([], [{"name": "a"}], [{"name": "a"}], id="an empty list that was filled"),
        pytest.param([{"name": "a"}], [], [], id="a list that was emptied"),
        pytest.param(("a", "b"), ["a", "b"], ["a", "b"], id="a tuple is a list"),
    ],
)
def test_project(want, live, seen):
    assert project(want, live) == seen


def test_what_is_compared_with_a_secret_is_one():
    seen = project({"data": {"password": Secret("aHVudGVyMg==")}}, {"data": {"password": "b3RoZXI=", "more": "x"}})
    assert seen == {"data": {"password": Secret("b3RoZXI=")}}
    assert "b3RoZXI=" not in repr(seen)


def test_revealed_opens_secrets_and_makes_plain_json():
    assert revealed({"data": {"p": Secret("s")}, "list": ({"q": Secret("t")},)}) == {
        "data": {"p": "s"},
        "list": [{"q": "t"}],
    }
