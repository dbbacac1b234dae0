"""What the planner decides, and what it says for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic, Severity, TransientError, UnobservableError, UsageError
from cinderctl.core.record import Record
from cinderctl.core.values import Ref, Secret
from cinderctl.engine.kinds import Existence, Observation
from cinderctl.engine.observe import World
from cinderctl.engine.planner import Steering, make_plan, worth_planning_again
from cinderctl.plans.model import Action, Cause, Mode
from tests.fakes.runs import applied, plan
from tests.fakes.world import CLUSTER, MemoryWorld, Thing, address, app, server

A, B, C = address("server.a"), address("app.b"), address("app.c")


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(check=True)


def change(made, where: Address | str):
    wanted = address(where) if isinstance(where, str) else where
    return next(item for item in made.changes if item.address == wanted)


def said(made) -> list[tuple[str, str, str]]:
    return [(str(item.address), item.action.value, item.reason) for item in made.pending]


def stack(**a) -> list:
    """b stands on a by reference, c on b by declaration."""
    return [server("a", **a), app("b", server=Ref(A, "id")), app("c", on=["app.b"])]


class TestReasons:
    def test_create(self, world):
        made = plan(world, stack())
        assert said(made) == [
            ("server.a", "create", "is not there yet"),
            ("app.b", "create", "is not there yet"),
            ("app.c", "create", "is not there yet"),
        ]
        assert change(made, B).inputs["server"] == Ref(A, "id")
        assert change(made, A).cause is Cause.SPEC

    def test_nothing_to_do(self, world):
        applied(world, stack())
        made = plan(world, stack())
        assert not made.pending
        assert change(made, B).inputs["server"] == "a-1", "a reference to what is there reads as its output"

    def test_spec_changed(self, world):
        applied(world, stack())
        made = plan(world, stack(size=5))
        assert said(made) == [("server.a", "update", "`size` changed in the spec")]
        assert change(made, A).cause is Cause.SPEC

    def test_changed_outside(self, world):
        applied(world, stack())
        world.drift(A, size=7)
        made = plan(world, stack())
        assert said(made) == [("server.a", "update", "`size` changed outside")]
        assert change(made, A).cause is Cause.WORLD

    def test_changed_on_both_sides(self, world):
        applied(world, stack())
        world.drift(A, size=7)
        assert said(plan(world, stack(size=2)))[0][2] == "`size` changed both in the spec and outside"

    def test_many_fields_are_counted(self, world):
        applied(world, [server("a")])
        made = plan(world, [server("a", size=2, tags={"x": 1}, password=Secret("s"), note="n", ports=[1])])
        assert said(made)[0][2].endswith(", and 2 more")

    def test_not_ready(self, world):
        applied(world, stack())
        world.things[A] = replace(world.things[A], ready=False)
        made = plan(world, stack())
        assert said(made) == [("server.a", "update", "not ready: it does not answer")]
        assert change(made, A).cause is Cause.WORLD

    def test_replace_and_all_that_stands_on_it(self, world):
        applied(world, stack())
        made = plan(world, stack(zone="z"))
        assert said(made) == [
            ("server.a", "replace", "`zone` cannot change in place (changed in the spec)"),
            ("app.b", "replace", "stands on server.a, which is replaced"),
            ("app.c", "replace", "stands on app.b, which is replaced"),
        ]
        (field,) = change(made, B).fields
        assert field.unknown_after
        assert change(made, A).fields[0].forces_replacement

    def test_gone_from_the_world_is_told_from_new(self, world):
        applied(world, stack())
        del world.things[A]
        made = plan(world, stack())
        assert change(made, A).reason == "is gone from the world"
        assert change(made, A).cause is Cause.WORLD
        assert change(made, C).action is Action.NO_OP, "what stands on something remade is not remade"

    def test_orphans_go_in_reverse_recorded_order(self, world):
        applied(world, stack())
        made = plan(world, [])
        assert said(made) == [
            ("app.c", "delete", "is no longer in the spec"),
            ("app.b", "delete", "is no longer in the spec"),
            ("server.a", "delete", "is no longer in the spec"),
        ]

    def test_dropping_something_below_does_not_rebuild_what_lets_go_of_it(self, world):
        applied(world, [server("a"), server("b"), app("c", on=["server.a", "server.b"])])
        made = plan(world, [server("a"), app("c", on=["server.a"])])
        assert said(made) == [
            ("app.c", "update", "`depends_on` changed in the spec"),
            ("server.b", "delete", "is no longer in the spec"),
        ]
        assert change(made, "server.b").after == (C,)

    def test_left_without_a_record_is_adopted(self, world):
        world.things[A] = Thing({"size": 1, "zone": "a"}, None, 1)
        made = plan(world, [server("a")])
        assert said(made) == [
            ("server.a", "adopt", "is there without our record, as an interrupted run leaves it: taken over")
        ]
        assert made.summary.adopt == 1

    def test_a_foreign_object_is_an_error_that_says_whose_it_is(self, world):
        world.foreign(A, "docker compose project shop")
        made = plan(world, [replace(server("a"), source="cluster.yaml:4"), app("b", on=["server.a"])])
        assert not made.pending
        (problem,) = made.errors
        assert problem.summary == "server.a exists and belongs to docker compose project shop"
        assert problem.source == "cluster.yaml:4"
        assert change(made, B).held
        assert "stands on server.a, which belongs to docker compose" in change(made, B).reason

    def test_an_object_of_another_cluster_is_foreign(self, world):
        world.things[A] = Thing({"size": 1}, Record("other", A, {}), 1)
        assert plan(world, [server("a")]).errors[0].summary == "server.a exists and belongs to cluster other"
        assert not plan(world, []).changes, "another cluster's object is no orphan of ours"

    def test_an_unfinished_update_is_done_again_though_nothing_differs(self, world):
        applied(world, [server("a")])
        seen = Observation(A, Existence.PRESENT, {"size": 1}, record=world.things[A].record)
        made = make_plan(
            [server("a")], World(CLUSTER, {A: seen}), world.kinds(), cluster=CLUSTER, unfinished={A: "update"}
        )
        assert said(made) == [("server.a", "update", "an earlier run did not finish it (update)")]

    def test_an_edge_that_is_not_on_record_is_put_there(self, world):
        applied(world, [server("a"), app("b")])
        made = plan(world, [server("a"), app("b", on=["server.a"])])
        assert said(made) == [("app.b", "update", "`depends_on` changed in the spec")]

    def test_what_a_volatile_output_feeds_changes_with_it(self, world):
        def spec(size):
            return [server("a", size=size), app("b", server=Ref(A, "address")), app("c", server=Ref(A, "id"))]

        applied(world, spec(1))
        made = plan(world, spec(2))
        assert [item[:2] for item in said(made)] == [("server.a", "update"), ("app.b", "update")]
        assert change(made, B).cause is Cause.DEPENDENCY
        applied(world, spec(2))
        assert not plan(world, spec(2)).pending


class TestUnknown:
    def test_what_cannot_be_seen_and_what_stands_on_it_stay(self, world):
        applied(world, stack())
        world.unseen[A] = UnobservableError("no route to the server")
        made = plan(world, [server("a", zone="z"), app("b", server=Ref(A, "id"), replicas=5), app("c", on=["app.b"])])
        assert not made.pending
        assert [str(problem.address) for problem in made.unobserved] == ["server.a"]
        assert change(made, A).reason == "could not be seen"
        assert change(made, B).held
        assert not change(made, C).held, "what would not change is not worth a word"

    def test_an_unseen_resource_keeps_what_it_stands_on_from_being_replaced(self, world):
        applied(world, stack())
        world.unseen[C] = TransientError("hiccup", retry_after=0)
        made = plan(world, stack(zone="z"))
        assert not made.pending
        assert not made.errors
        assert change(made, A).reason == (
            "would be replaced (`zone` cannot change in place (changed in the spec)), but app.c, which stands on it,"
            " could not be seen"
        )
        lifted = plan(world, stack(zone="z"), steering=Steering(allow_unknown=True))
        assert change(lifted, A).action is Action.REPLACE
        assert change(lifted, C).action is Action.NO_OP, "even then, unknown never becomes replace"

    def test_what_stands_on_something_absent_is_absent(self, world):
        world.unseen[B] = UnobservableError("no server to ask")
        world.unlisted["app"] = UnobservableError("no server to ask")
        made = plan(world, [server("a"), app("b", on=["server.a"])])
        assert [item[1] for item in said(made)] == ["create", "create"]
        assert not made.unobserved

    def test_orphans_that_cannot_be_listed_are_reported_and_nothing_is_torn_down(self, world):
        applied(world, [server("a"), app("b", on=["server.a"])])
        world.unlisted["app"] = UnobservableError("forbidden")
        made = plan(world, [])
        assert not made.pending
        assert [problem.summary for problem in made.unobserved] == ["forbidden"]
        assert "could not be listed" in change(made, A).reason

    def test_planning_again_is_worth_it_when_what_is_below_gets_mended(self, world):
        applied(world, stack())
        world.things[A] = replace(world.things[A], ready=False)
        world.unseen[B] = UnobservableError("no server to ask")
        assert worth_planning_again(plan(world, stack()))
        world.things[A] = replace(world.things[A], ready=True)
        assert not worth_planning_again(plan(world, stack()))

    def test_a_fault_in_a_kind_is_something_not_seen(self, world):
        world.unseen[A] = ZeroDivisionError("division by zero")
        made = plan(world, [server("a")])
        assert not made.pending
        assert "ZeroDivisionError" in made.unobserved[0].detail


class TestProtect:
    def test_a_protected_resource_is_not_replaced_and_the_plan_is_an_error(self, world):
        applied(world, [server("a", protect=True)])
        made = plan(world, [server("a", zone="z", protect=True)])
        assert not made.pending
        assert made.errors[0].summary == "server.a would have to be replaced, but it is protected"

    def test_protection_holds_what_it_stands_on(self, world):
        def spec(**a):
            return [server("a", **a), app("b", on=["server.a"], protect=True), app("c", on=["server.a"], replicas=2)]

        applied(world, spec())
        made = plan(world, spec(zone="z"))
        assert not made.pending
        assert "app.b, which stands on it, is protected" in made.errors[0].summary

    def test_the_record_protects_when_the_block_is_gone(self, world):
        applied(world, [server("a", protect=True), app("b")])
        made = plan(world, [])
        assert said(made) == [("app.b", "delete", "is no longer in the spec")]
        assert made.diagnostics[0].severity is Severity.WARNING
        assert change(made, A).held

    def test_destroy_leaves_it_and_what_it_stands_on(self, world):
        spec = [server("a"), app("b", on=["server.a"], protect=True), app("c", on=["app.b"])]
        applied(world, spec)
        made = plan(world, [], mode=Mode.DESTROY)
        assert said(made) == [("app.c", "delete", "everything is destroyed")]
        assert change(made, A).reason == "stays: app.b, which stands on it, is protected"

    def test_lifting_the_protection_is_a_change_of_its_own(self, world):
        applied(world, [server("a", protect=True)])
        assert said(plan(world, [server("a")])) == [("server.a", "update", "`lifecycle.protect` changed in the spec")]
        applied(world, [server("a")])
        assert not plan(world, [server("a")]).pending


class TestDestroy:
    def test_everything_of_ours_in_reverse_recorded_order(self, world):
        applied(world, stack())
        world.foreign(address("server.other"), "somebody")
        made = plan(world, [], mode=Mode.DESTROY)
        assert [str(item.address) for item in made.pending] == ["app.c", "app.b", "server.a"]

    def test_what_cannot_be_seen_is_reported_and_holds_nothing_up(self, world):
        applied(world, stack())
        world.unseen[C] = UnobservableError("no server to ask")
        made = plan(world, stack(), mode=Mode.DESTROY)
        assert [str(item.address) for item in made.pending] == ["app.b", "server.a"]
        assert change(made, C).reason == "could not be seen; if it is there it goes with app.b"
        assert any(problem.address == C for problem in made.unobserved)

    def test_what_an_interrupted_run_left_goes_too(self, world):
        world.things[A] = Thing({"size": 1}, None, 1)
        made = plan(world, [server("a")], mode=Mode.DESTROY)
        assert said(made) == [("server.a", "delete", "an interrupted run left it behind")]


class TestSteering:
    def test_targets_take_what_they_need_and_nothing_else(self, world):
        made = plan(world, [*stack(), server("z")], steering=Steering(targets=(B,)))
        assert [str(item.address) for item in made.pending] == ["server.a", "app.b"]
        assert "not part of this run" in change(made, "server.z").reason

    def test_excluded_takes_its_dependents_along_and_says_so(self, world):
        made = plan(world, stack(), steering=Steering(exclude=(B,)))
        assert [str(item.address) for item in made.pending] == ["server.a"]
        assert change(made, C).reason == (
            "would be created (is not there yet), but stands on app.b, which is not part of this run"
        )

    def test_excluded_keeps_what_it_stands_on_from_being_replaced(self, world):
        applied(world, stack())
        made = plan(world, stack(zone="z"), steering=Steering(exclude=(C,)))
        assert not made.pending

    def test_replacement_can_be_asked_for(self, world):
        applied(world, stack())
        made = plan(world, stack(), steering=Steering(replace=(B,)))
        assert [item[:2] for item in said(made)] == [("app.b", "replace"), ("app.c", "replace")]
        assert change(made, B).reason == "replacement was asked for"

    def test_destroying_a_target_takes_what_stands_on_it(self, world):
        applied(world, [*stack(), server("z")])
        made = plan(world, [], mode=Mode.DESTROY, steering=Steering(targets=(B,)))
        assert [str(item.address) for item in made.pending] == ["app.c", "app.b"]

    def test_a_target_that_does_not_exist_is_a_usage_error_with_the_nearest_name(self, world):
        with pytest.raises(UsageError) as caught:
            plan(world, stack(), steering=Steering(targets=(address("server.aa"),)))
        assert caught.value.diagnostics[0].hint == "did you mean server.a?"


def test_ignored_drift_is_no_change_and_survives_an_update_of_the_rest(world):
    def spec(tag):
        return [server("a", size=1, tags={"x": tag}, ignore=["size"])]

    applied(world, spec(1))
    world.drift(A, size=9)
    assert not plan(world, spec(1)).pending
    applied(world, spec(2))
    assert world.things[A].attributes["size"] == 9
    assert world.things[A].attributes["tags"] == {"x": 2}
    assert not plan(world, spec(2)).pending


def test_secrets_are_in_no_part_of_a_plan(world):
    spec = [server("a", password=Secret("hunter2"), tags={"deep": {"er": Secret("hunter2")}})]
    applied(world, spec)
    made = plan(world, [server("a", password=Secret("hunter3"), tags={"deep": {"er": Secret("hunter4")}})])
    assert [item.path[-1] for item in change(made, A).fields] == ["er", "password"]
    assert "hunter" not in repr(made)


def test_an_observation_of_a_resource_nobody_looked_at_counts_as_absent(world):
    made = make_plan([server("a")], World(CLUSTER), world.kinds(), cluster=CLUSTER)
    assert made.pending[0].action is Action.CREATE


def test_unknown_without_a_reason_is_still_reported(world):
    seen = Observation(A, Existence.UNKNOWN)
    made = make_plan([server("a", source="x:1")], World(CLUSTER, {A: seen}), world.kinds(), cluster=CLUSTER)
    assert made.unobserved == (Diagnostic("server.a could not be seen", address=A, source="x:1"),)
