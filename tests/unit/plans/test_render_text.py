"""The plan as people read it. Accept a new text with CINDERCTL_ACCEPT=1, and review the difference."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from cinderctl.core.diagnostics import Diagnostic
from cinderctl.plans import drift
from cinderctl.plans.model import Action, Cause, Change, FieldChange, Mode, Plan
from cinderctl.plans.render_graph import render_dot, render_mermaid
from cinderctl.plans.render_text import render_text
from tests.fakes.plans import at, every_case, nothing

GOLDEN = Path(__file__).parent / "golden"
ANSI = re.compile(r"\x1b\[\d+m")


def assert_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("CINDERCTL_ACCEPT"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("width", [80, 200])
def test_plan(width, color):
    text = render_text(every_case(), width=width, color=color)
    assert_golden(f"plan-{width}{'-color' if color else ''}.txt", text)


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("width", [80, 200])
def test_drift(width, color):
    text = drift.render_text(drift.drift_of(every_case()), width=width, color=color)
    assert_golden(f"drift-{width}{'-color' if color else ''}.txt", text)


def test_graphs():
    plan = every_case()
    edges = {change.address: change.depends_on for change in plan.changes}
    actions = {change.address: change.action for change in plan.changes}
    assert_golden("graph.dot", render_dot(edges, actions))
    assert_golden("graph.mermaid", render_mermaid(edges, actions))
    assert "fillcolor=" in render_dot(edges)
    assert "classDef" not in render_mermaid(edges)


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_colour_says_nothing_that_the_text_does_not(width):
    plain, painted = (render_text(every_case(), width=width, color=color) for color in (False, True))
    assert ANSI.sub("", painted) == plain
    assert plain != painted


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_line_is_wider_than_the_page(width):
    for text in (
        render_text(every_case(), width=width),
        drift.render_text(drift.drift_of(every_case()), width=width),
    ):
        assert max(map(len, text.splitlines())) <= width


def test_the_last_line_counts():
    assert render_text(every_case()).splitlines()[-1] == (
        "Plan: 1 to create, 2 to update, 1 to replace, 1 to delete, 1 to adopt."
    )
    assert render_text(nothing()).splitlines() == [
        "No changes. The world is as the spec says.",
        "",
        "Plan: 0 to create, 0 to update, 0 to replace, 0 to delete.",
    ]


def test_nothing_to_destroy():
    assert render_text(Plan("cinder", Mode.DESTROY, ())).startswith("No changes. There is nothing of this cluster left")


def test_a_plan_that_saw_nothing_does_not_say_that_all_is_well():
    held = Change(at("manifest.a"), Action.NO_OP, "could not be seen", held=True)
    text = render_text(Plan("cinder", Mode.APPLY, (held,), unobserved=(Diagnostic("no answer", address=held.address),)))
    assert "# manifest.a is left as it is: could not be seen" in text
    assert "not seen: manifest.a: no answer" in text
    assert "No changes can be made." in text


def test_secrets_read_as_sensitive():
    text = render_text(every_case(), width=200)
    assert "token: (sensitive) -> (sensitive)" in re.sub(r" +", " ", text)
    assert "sha256:" not in text.replace("sha256:11", "")


def test_values_not_known_yet_read_so():
    text = re.sub(r" +", " ", render_text(every_case(), width=200))
    assert "endpoint = (known after apply)" in text
    assert 'caFingerprint: "sha256:11" -> (known after apply)' in text


def moved(before, after):
    field = FieldChange(("taints",), before, after, Cause.WORLD)
    change = Change(at("wasm_node.w"), Action.UPDATE, "changed", (field,))
    return render_text(Plan("c", Mode.APPLY, (change,)), width=80)


def test_of_a_long_list_only_what_goes_and_comes_is_shown():
    kept = [{"key": f"a-rather-long-key-{number}", "effect": "NoSchedule"} for number in range(3)]
    text = moved([*kept, {"key": "old"}], [*kept, {"key": "new"}])
    assert '- {"key": "old"}' in text
    assert '+ {"key": "new"}' in text
    assert "# (3 unchanged items hidden)" in text
    assert "a-rather-long-key" not in text


def test_long_values_are_shown_from_where_they_differ():
    text = moved("x" * 100 + "one", "x" * 100 + "two")
    assert 'one"' in text
    assert "-> …" in text
    assert 'two"' in text
