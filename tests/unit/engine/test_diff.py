"""Left-scoped, three-way, with causes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cinderctl.core.values import Ref, Secret, redacted
from cinderctl.engine.diff import diff_inputs
from cinderctl.plans.model import Cause, path_text
from tests.fakes.world import address

REF = Ref(address("server.a"), "id")


def changes(want, have, base, **options):
    return {
        path_text(item.path): (item.before, item.after, item.cause.value)
        for item in diff_inputs(want, have, base, **options)
    }


@pytest.mark.parametrize(
    ("want", "have", "base", "expected"),
    [
        pytest.param({"a": 1}, {"a": 1}, {"a": 1}, {}, id="nothing moved"),
        pytest.param({"a": 2}, {"a": 1}, {"a": 1}, {"a": (1, 2, "spec")}, id="the spec moved"),
        pytest.param({"a": 1}, {"a": 3}, {"a": 1}, {"a": (3, 1, "world")}, id="the world moved"),
        pytest.param({"a": 2}, {"a": 3}, {"a": 1}, {"a": (3, 2, "both")}, id="both moved, apart"),
        pytest.param({"a": 2}, {"a": 2}, {"a": 1}, {}, id="both moved, to the same"),
        pytest.param({"a": 1.0}, {"a": 1}, {"a": 1}, {}, id="1.0 is 1"),
        pytest.param({"a": True}, {"a": 1}, {"a": 1}, {"a": (1, True, "spec")}, id="true is not 1"),
        pytest.param({"a": "1"}, {"a": 1}, {"a": 1}, {"a": (1, "1", "spec")}, id="text is not a number"),
        pytest.param({"a": {"x": 1}}, {"a": {"x": 1, "default": 5}}, {"a": {"x": 1}}, {}, id="server default"),
        pytest.param({"a": None}, {"a": 5}, {"a": None}, {}, id="server default for what is not said"),
        pytest.param({"a": None}, {"a": 5}, {"a": 5}, {"a": (5, None, "spec")}, id="no longer said"),
        pytest.param({"a": None}, {"a": None}, {"a": 5}, {}, id="no longer said, gone already"),
        pytest.param({"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "y": 2}}, {"a.y": (2, None, "spec")},
                     id="key removed"),
        pytest.param({"a": {"x": 1}}, {"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, {}, id="key removed on both sides"),
        pytest.param({"a": {"x": 1}}, {"a": {}}, {"a": {"x": 1}}, {"a.x": (None, 1, "world")}, id="key lost"),
        pytest.param({"a": {"x": {"y": 1}}}, {"a": {}}, {"a": {}}, {"a.x.y": (None, 1, "spec")}, id="new branch"),
        pytest.param({"a": {"x": {}}}, {"a": {}}, {"a": {}}, {}, id="an empty branch asks for nothing"),
        pytest.param({"a": {"x": 1}}, {"a": "text"}, {"a": {"x": 1}}, {"a": ("text", {"x": 1}, "world")},
                     id="another type"),
        pytest.param({"a": [1, 2]}, {"a": [2, 1]}, {"a": [1, 2]}, {"a": ([2, 1], [1, 2], "world")},
                     id="lists compare whole, in order"),
        pytest.param({"a": {"l": [1]}}, {"a": {"l": [1, 2]}}, {"a": {"l": [1]}}, {"a.l": ([1, 2], [1], "world")},
                     id="nested list compares whole"),
        pytest.param({"a": [{"name": "x", "v": 1}, {"name": "y", "v": 1}]},
                     {"a": [{"name": "y", "v": 1}, {"name": "x", "v": 2, "d": 0}, {"name": "injected"}]},
                     {"a": [{"name": "x", "v": 1}, {"name": "y", "v": 1}]},
                     {"a.x.v": (2, 1, "world")}, id="named items compare by name"),
        pytest.param({"a": [{"name": "x"}]}, {"a": [{"name": "x"}, {"name": "y"}]},
                     {"a": [{"name": "x"}, {"name": "y"}]},
                     {"a.y": ({"name": "y"}, None, "spec")}, id="named item removed"),
        pytest.param({"a": []}, {"a": [{"name": "y"}]}, {"a": [{"name": "y"}]}, {"a.y": ({"name": "y"}, None, "spec")},
                     id="last named item removed"),
        pytest.param({"a": [{"name": "x"}]}, {"a": []}, {"a": []}, {"a.x.name": (None, "x", "spec")},
                     id="first named item"),
        pytest.param({"a": [{"name": "x"}, {"name": "x"}]}, {"a": []}, {"a": []},
                     {"a": ([], [{"name": "x"}, {"name": "x"}], "spec")}, id="names twice compare whole"),
        pytest.param({"a": 2}, {}, {"a": 1}, {"a": (1, 2, "spec")}, id="unobservable, the spec moved"),
        pytest.param({"a": 1}, {}, {"a": 1}, {}, id="unobservable, nothing moved"),
        pytest.param({"a": 1}, {}, None, {}, id="unobservable, no record"),
        pytest.param({"a": 1}, {"a": 2}, None, {"a": (2, 1, "spec")}, id="no record"),
        pytest.param({"a": 1, "new": 5}, {"a": 1}, {"a": 1}, {"new": (None, 5, "spec")}, id="input new to the kind"),
        pytest.param({"a": 1, "new": []}, {"a": 1}, {"a": 1}, {}, id="input new to the kind that says nothing"),
        pytest.param({"a": {"k8s.io/x": 1}}, {"a": {"k8s.io/x": 2}}, {"a": {"k8s.io/x": 1}},
                     {'a."k8s.io/x"': (2, 1, "world")}, id="keys with dots"),
    ],
)  # fmt: skip
def test_field_changes(want, have, base, expected):
    assert changes(want, have, base) == expected


def test_a_value_not_known_yet_is_a_change_that_follows_from_a_dependency():
    (found,) = diff_inputs({"a": REF}, {"a": "old"}, {"a": "old"})
    assert found.unknown_after
    assert (found.before, found.after, found.cause) == ("old", REF, Cause.DEPENDENCY)


def test_a_resolved_reference_that_moved_follows_from_its_dependency():
    found = changes({"a": "new"}, {"a": "old"}, {"a": "old"}, declared={"a": REF})
    assert found == {"a": ("old", "new", "dependency")}


def test_a_resolved_reference_whose_copy_was_edited_is_the_worlds_doing():
    assert changes({"a": "new"}, {"a": "odd"}, {"a": "new"}, declared={"a": REF}) == {"a": ("odd", "new", "world")}


def test_ignored_paths_leave_drift_alone_but_not_a_change_of_the_spec():
    base = {"spec": {"replicas": 1, "image": "a"}}
    have = {"spec": {"replicas": 5, "image": "b"}}
    assert changes(base, have, base, ignore=["spec.replicas"]) == {"spec.image": ("b", "a", "world")}
    assert changes(base, have, base, ignore=["spec"]) == {}
    wanted = {"spec": {"replicas": 2, "image": "a"}}
    assert changes(wanted, have, base, ignore=["spec"]) == {"spec.replicas": (5, 2, "both")}


def test_fields_that_force_replacement_say_so():
    (found,) = diff_inputs({"a": {"x": 1}}, {"a": {"x": 2}}, {"a": {"x": 1}}, replaces=frozenset({"a"}))
    assert found.forces_replacement


@pytest.mark.parametrize("where", ["spec.x", "spec", "spec.x.deeper"])
def test_who_changed_it_is_told_where_the_world_knows(where):
    (found,) = diff_inputs(
        {"spec": {"x": {"deeper": 1}}},
        {"spec": {"x": {"deeper": 2}}},
        {"spec": {"x": {"deeper": 1}}},
        changed_by={where: "kubectl at 12:00"},
    )
    assert found.changed_by == "kubectl at 12:00"


def test_secrets_compare_by_digest_and_never_show():
    want = redacted({"p": Secret("new-one")})
    (found,) = diff_inputs(want, redacted({"p": Secret("old-one")}), redacted({"p": Secret("old-one")}))
    assert "one" not in f"{found.before}{found.after}"
    assert not diff_inputs(want, want, want)


def test_what_does_not_differ_costs_no_import():
    code = (
        "import sys; from cinderctl.engine.diff import diff_inputs as d\n"
        "d({'a': {'x': [1]}}, {'a': {'x': [1], 'y': 2}}, {'a': {'x': [1]}}); d({'a': 1}, {'a': 2}, {'a': 1})\n"
        "assert 'deepdiff' not in sys.modules\n"
        "d({'a': {'x': 1}}, {'a': {'x': 2}}, {'a': {'x': 1}}); assert 'deepdiff' in sys.modules\n"
    )
    path = [entry for entry in sys.path if entry]
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"], check=True)
