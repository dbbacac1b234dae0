"""A saved plan holds as long as what it relies on does, and no longer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cinderctl.core.diagnostics import StalePlanError, UnobservableError
from cinderctl.core.values import Ref, Secret
from cinderctl.engine.facts import check_declarations, check_fresh, declarations_digest, relied_on
from cinderctl.engine.observe import observe_world
from tests.fakes.runs import applied, plan
from tests.fakes.world import CLUSTER, MemoryWorld, address, app, server

A, B = address("server.a"), address("app.b")


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld()


def check(world, made, spec):
    seen = observe_world(spec, world.kinds(), CLUSTER, only=relied_on(made))
    check_fresh(made, seen.observations)


def moved(world, made, spec):
    with pytest.raises(StalePlanError) as caught:
        check(world, made, spec)
    return [(str(problem.address), ".".join(map(str, problem.path))) for problem in caught.value.diagnostics]


def test_a_run_in_between_that_changed_nothing_leaves_a_plan_valid(world):
    applied(world, [server("a")])
    spec = [server("a", size=2)]
    made = plan(world, spec)
    applied(world, [server("a")])
    check(world, made, spec)


def test_a_plan_applied_already_is_stale(world):
    spec = [server("a"), app("b", server=Ref(A, "id"))]
    made = plan(world, spec)
    applied(world, spec)
    assert moved(world, made, spec) == [("server.a", "existence"), ("app.b", "existence")]


def test_the_field_that_moved_is_named(world):
    applied(world, [server("a", tags={"x": {"y": 1}})])
    spec = [server("a", size=2, tags={"x": {"y": 1}})]
    made = plan(world, spec)
    world.drift(A, tags={"x": {"y": 7}})
    assert moved(world, made, spec) == [("server.a", "tags.x.y")]


def test_a_field_the_spec_says_nothing_of_may_move(world):
    applied(world, [server("a")])
    spec = [server("a", size=2)]
    made = plan(world, spec)
    world.drift(A, heartbeat=5)
    check(world, made, spec)


def test_readiness_that_was_lost_is_named(world):
    applied(world, [server("a")])
    spec = [server("a", size=2)]
    made = plan(world, spec)
    world.things[A] = replace(world.things[A], ready=False)
    assert moved(world, made, spec) == [("server.a", "ready")]


def test_what_stays_is_relied_on_only_by_what_changes_above_it(world):
    spec = [server("a"), server("z"), app("b", server=Ref(A, "id"))]
    applied(world, spec)
    changed = [server("a"), server("z"), app("b", server=Ref(A, "id"), replicas=3)]
    made = plan(world, changed)
    assert relied_on(made) == {A, B}
    world.drift(A, size=9)
    check(world, made, changed)
    world.things[A] = replace(world.things[A], generation=77)
    assert moved(world, made, changed) == [("server.a", "outputs.id")]


def test_what_cannot_be_seen_any_more_makes_a_plan_stale(world):
    applied(world, [server("a")])
    made = plan(world, [])
    world.unseen[A] = UnobservableError("no route")
    assert moved(world, made, []) == [("server.a", "existence")]


def test_what_could_not_exist_may_be_absent_or_still_unseen(world):
    spec = [server("a"), app("b", on=["server.a"])]
    world.unseen[B] = UnobservableError("no server to ask")
    made = plan(world, spec)
    check(world, made, spec)
    world.unseen.clear()
    check(world, made, spec)


def test_the_spec_counts_by_what_it_says(world):
    spec = [server("a", password=Secret("one")), server("b")]
    assert declarations_digest(spec) == declarations_digest(list(reversed(spec)))
    assert declarations_digest(spec) == declarations_digest([replace(item, source="elsewhere:1") for item in spec])
    assert declarations_digest(spec) != declarations_digest([server("a", password=Secret("two")), server("b")])


def test_another_spec_is_refused_and_what_differs_is_named(world):
    made = plan(world, [server("a"), server("b")])
    check_declarations(made, [server("b"), server("a")])
    with pytest.raises(StalePlanError) as caught:
        check_declarations(made, [server("a", size=4), server("c")])
    assert [problem.summary for problem in caught.value.diagnostics] == [
        "the saved plan is stale: server.a has another size in the spec now",
        "the saved plan is stale: server.b is gone from the spec",
        "the saved plan is stale: server.c is new in the spec",
    ]
