"""Doing what the plan shows: order, failures, retries, interrupts, and the world moving meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from cinderctl.core.diagnostics import (
    CinderError,
    Diagnostic,
    InterruptedRunError,
    PartialError,
    TransientError,
)
from cinderctl.core.values import Ref
from cinderctl.engine.events import (
    RunFinished,
    RunStarted,
    StepDone,
    StepFailed,
    StepProgress,
    StepRetried,
    StepSkipped,
    StepStarted,
)
from cinderctl.engine.executor import Outcome, apply_plan
from cinderctl.engine.journal import Journal, JournalError, read_journal
from cinderctl.engine.schedule import make_schedule
from cinderctl.engine.steps import Interrupt, interrupt_on_signals
from cinderctl.plans.model import Mode
from tests.fakes.runs import applied, apply, look, plan
from tests.fakes.world import Fuse, MemoryWorld, Thing, address, app, server

A, B, C = address("server.a"), address("app.b"), address("app.c")


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld(check=True)


def outcomes(result):
    return {str(item.address): item.outcome.value for item in result.results}


def stack(**a):
    return [server("a", **a), app("b", server=Ref(A, "id")), app("c", on=["app.b"]), server("apart")]


class TestOrder:
    def test_tear_down_first_and_in_reverse_then_build(self, world):
        applied(world, [*stack(), server("old")])
        world.log.clear()
        applied(world, stack(zone="z"), parallelism=1)
        assert world.log[:4] == ["delete server.old", "delete app.c", "delete app.b", "delete server.a"] or (
            world.log.index("delete app.c") < world.log.index("delete app.b") < world.log.index("delete server.a")
        )
        assert world.log[-3:] == ["create server.a", "create app.b", "create app.c"]

    def test_references_resolve_to_what_was_just_made(self, world):
        applied(world, stack())
        assert world.things[B].attributes["server"] == "a-" + str(world.things[A].generation)
        assert world.things[B].record.inputs["server"] == world.things[B].attributes["server"]

    def test_the_longest_way_to_the_end_starts_first(self, world):
        spec = [server("a"), server("z"), app("y", on=["server.z"]), app("x", on=["app.y"])]
        applied(world, spec, parallelism=1)
        assert world.log[0] == "create server.z"

    def test_what_waits_for_something_kept_waits_for_what_that_stands_on(self, world):
        applied(world, [server("a"), app("b", on=["server.a"])])
        made = plan(world, [server("a", size=2), app("b", on=["server.a"]), app("c", on=["app.b"])])
        nodes = {str(node.change.address): node for node in make_schedule(made) if node.change}
        assert nodes["server.a"].weight == 2
        assert nodes["app.b"].phase == ""

    def test_a_replacement_is_one_line_of_the_table(self, world):
        applied(world, stack())
        result = applied(world, stack(zone="z"))
        assert [str(item.address) for item in result.results] == ["server.a", "app.b", "app.c"]
        assert result.count(Outcome.DONE) == 3

    def test_no_more_steps_of_a_kind_than_it_allows(self, world):
        running, most, lock = [0], [0], threading.Lock()

        def slow(at, step):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.01)
            with lock:
                running[0] -= 1

        world.slow = slow
        applied(world, [app(str(index)) for index in range(12)], parallelism=10)
        assert most[0] == 4


class TestFailure:
    def test_a_failing_step_stops_what_stands_on_it_and_nothing_else(self, world):
        world.fuse = Fuse(at=1, error=CinderError("the disk is full", hint="make room"))
        events = []
        result = apply(world, stack(), parallelism=1, emit=events.append)
        assert outcomes(result) == {
            "server.a": "failed",
            "app.b": "skipped",
            "app.c": "skipped",
            "server.apart": "done",
        }
        skipped = next(item for item in result.results if item.address == C)
        assert (skipped.because, skipped.reason) == (A, "stands on server.a, which failed")
        error = result.error()
        assert isinstance(error, PartialError)
        assert error.diagnostics == (Diagnostic("the disk is full", hint="make room", address=A),)
        finished = events[-1]
        assert isinstance(finished, RunFinished)
        assert (finished.done, finished.failed, finished.skipped) == (1, 1, 2)

    def test_nothing_done_is_no_partial_success(self, world):
        world.fuse = Fuse(at=1, error=CinderError("no"))
        error = apply(world, [server("a")]).error()
        assert type(error) is CinderError

    def test_the_failure_of_a_tear_down_does_not_stop_what_does_not_stand_on_it(self, world):
        applied(world, [server("old")])
        world.fuse = Fuse(at=1, error=CinderError("busy"))
        result = apply(world, [server("new")], parallelism=1)
        assert outcomes(result) == {"server.old": "failed", "server.new": "done"}

    def test_what_is_to_let_go_failed_so_the_deletion_waits(self, world):
        applied(world, [server("a"), app("c", on=["server.a"])])
        world.fuse = Fuse(at=1, error=CinderError("no"))
        result = apply(world, [app("c")])
        assert outcomes(result) == {"app.c": "failed", "server.a": "skipped"}
        assert A in world.things

    def test_a_foreign_exception_becomes_a_diagnostic_without_a_traceback(self, world):
        world.fuse = Fuse(at=1, error=ZeroDivisionError("division by zero"))
        (problem,) = apply(world, [server("a", source="x.yaml:3")]).error().diagnostics
        assert problem.summary == "internal error in server.a: ZeroDivisionError: division by zero"
        assert problem.detail == ""
        assert problem.source == "x.yaml:3"
        world.fuse = Fuse(at=1, error=ZeroDivisionError("division by zero"))
        (problem,) = apply(world, [server("a")], debug=True).error().diagnostics
        assert "Traceback" in problem.detail

    def test_the_next_run_goes_on(self, world, tmp_path):
        world.fuse = Fuse(at=2, error=CinderError("no"))
        apply(world, stack(), journal=tmp_path / "journal", parallelism=1)
        applied(world, stack(), journal=tmp_path / "journal")
        assert not plan(world, stack(), journal=tmp_path / "journal").pending

    def test_an_output_that_is_not_there_is_named(self, world):
        result = apply(world, [server("a"), app("b", server=Ref(A, "port"))])
        assert result.error().diagnostics[0].summary == "server.a has no output 'port'"
        assert result.error().diagnostics[0].detail == "Known: address, id"

    def test_a_plan_with_errors_is_not_begun(self, world):
        world.foreign(A, "somebody else")
        with pytest.raises(CinderError, match="belongs to somebody else"):
            apply(world, [server("a"), server("b")])
        assert not world.log

    def test_what_a_step_logged_is_kept_with_its_failure(self, world):
        def slow(at, step):
            step.log("line one\n")
            step.log("line two\n")
            raise CinderError("exit status 3")

        world.slow = slow
        events = []
        result = apply(world, [server("a")], emit=events.append)
        assert result.results[0].log == "line one\nline two\n"
        assert next(event for event in events if isinstance(event, StepFailed)).log == "line one\nline two\n"


class TestRetry:
    def test_what_may_pass_is_tried_again(self, world):
        tries = []

        def slow(at, step):
            tries.append(at)
            if len(tries) < 3:
                raise TransientError("connection refused", retry_after=0.001)

        world.slow = slow
        events = []
        applied(world, [server("a")], emit=events.append)
        assert [event.attempt for event in events if isinstance(event, StepRetried)] == [2, 3]
        assert len(tries) == 3

    def test_not_beyond_the_deadline(self, world):
        def slow(at, step):
            raise TransientError("connection refused", retry_after=60)

        world.slow = slow
        result = apply(world, [server("a")])
        assert result.error().diagnostics[0].summary == "connection refused"

    def test_waiting_names_what_it_waited_for(self, world):
        def slow(at, step):
            def never():
                raise TransientError("connection refused")

            step.wait_until(never, "the server answers", timeout=0.02, interval=0.001)

        world.slow = slow
        events = []
        (problem,) = apply(world, [server("a")], emit=events.append).error().diagnostics
        assert problem.summary == "server.a: not in 0.02 s: the server answers"
        assert problem.detail == "Last: connection refused"
        assert any(isinstance(event, StepProgress) and "the server answers" in event.message for event in events)

    def test_waiting_returns_what_was_waited_for(self, world):
        got = []
        answers = iter([None, None, "ready"])
        world.slow = lambda at, step: got.append(step.wait_until(lambda: next(answers), "it is there", interval=0.001))
        applied(world, [server("a")])
        assert got == ["ready"]


class TestTheWorldMovesMeanwhile:
    def run(self, world, spec, meddle):
        made, seen = plan(world, spec), look(world, spec)
        meddle()
        world.log.clear()
        return apply_plan(made, spec, seen, world.kinds(), patience=0.01)

    def test_a_field_that_moved_stops_its_branch(self, world):
        applied(world, stack())
        result = self.run(world, stack(size=3), lambda: world.drift(A, zone="moved"))
        (problem,) = result.error().diagnostics
        assert problem.summary == "server.a is not what the plan was made for: this moved: zone"
        assert not world.log

    def test_a_field_that_the_step_sets_anyway_may_move(self, world):
        applied(world, stack())
        result = self.run(world, stack(size=3), lambda: world.drift(A, size=8))
        assert outcomes(result) == {"server.a": "done"}
        assert world.things[A].attributes["size"] == 3

    def test_an_object_that_appeared_is_not_taken_over(self, world):
        result = self.run(world, [server("a")], lambda: world.foreign(A, "somebody else"))
        assert "it exists by now and belongs to somebody else" in result.error().diagnostics[0].summary
        assert not world.log

    def test_an_object_that_is_gone_already_needs_no_deleting(self, world):
        applied(world, [server("a")])
        result = self.run(world, [], lambda: world.things.pop(A))
        assert outcomes(result) == {"server.a": "done"}
        assert not world.log

    def test_what_cannot_be_seen_any_more_is_left_alone(self, world):
        applied(world, [server("a")])
        result = self.run(world, [], lambda: world.unseen.update({A: CinderError("no route")}))
        assert outcomes(result) == {"server.a": "failed"}
        assert not world.log

    def test_readiness_lost_on_the_way_is_no_reason_to_stop(self, world):
        from dataclasses import replace

        applied(world, [server("a")])
        spec = [server("a", size=2)]
        result = self.run(world, spec, lambda: world.things.update({A: replace(world.things[A], ready=False)}))
        assert outcomes(result) == {"server.a": "done"}

    def test_what_an_interrupted_run_left_is_adopted(self, world):
        world.things[A] = Thing({"size": 1, "zone": "a"}, None, 1)
        result = applied(world, [server("a", size=4)])
        assert outcomes(result) == {"server.a": "done"}
        assert world.things[A].attributes["size"] == 4
        assert not plan(world, [server("a", size=4)]).pending


class TestInterrupt:
    def test_the_first_ends_running_steps_and_begins_no_more(self, world, tmp_path):
        interrupt = Interrupt()

        def slow(at, step):
            interrupt.request()
            step.wait_until(lambda: None, "the end of time", timeout=30)

        world.slow = slow
        journal = tmp_path / "journal"
        result = apply(world, stack(), journal=journal, interrupt=interrupt, parallelism=1)
        assert set(outcomes(result).values()) <= {"interrupted", "skipped"}
        assert isinstance(result.error(), InterruptedRunError)
        assert result.error().exit_code == 130
        assert not world.things
        history = read_journal(journal)
        assert history.unfinished == {A: "create"}
        assert history.runs[-1].outcome == "interrupted"

    def test_a_step_that_ends_all_the_same_is_done(self, world):
        interrupt = Interrupt()
        world.slow = lambda at, step: interrupt.request()
        result = apply(world, [server("a"), server("b", on=["server.a"])], interrupt=interrupt)
        assert outcomes(result) == {"server.a": "done", "server.b": "interrupted"}

    def test_the_second_stops_at_once_and_the_journal_knows_what_was_under_way(self, world, tmp_path):
        interrupt, hang = Interrupt(), threading.Event()

        def slow(at, step):
            interrupt.request()
            interrupt.request()
            hang.wait(30)  # a step that does not listen

        world.slow = slow
        began = time.monotonic()
        with pytest.raises(InterruptedRunError):
            apply(world, [server("a")], journal=tmp_path / "journal", interrupt=interrupt)
        assert time.monotonic() - began < 5
        assert read_journal(tmp_path / "journal").unfinished == {A: "create"}
        hang.set()

    def test_signals_are_requests(self, world):
        interrupt = Interrupt()

        def slow(at, step):
            os.kill(os.getpid(), signal.SIGINT)
            step.wait_until(lambda: None, "the end of time", timeout=30)

        world.slow = slow
        before = signal.getsignal(signal.SIGINT)
        with interrupt_on_signals(interrupt):
            result = apply(world, [server("a")], interrupt=interrupt)
        assert outcomes(result) == {"server.a": "interrupted"}
        assert signal.getsignal(signal.SIGINT) is before


class TestJournal:
    def test_the_begin_is_durable_before_the_act(self, world, tmp_path):
        path = tmp_path / "journal"
        seen = []
        world.slow = lambda at, step: seen.append(read_journal(path).unfinished)
        applied(world, [server("a")], journal=path)
        assert seen == [{A: "create"}]
        assert read_journal(path).unfinished == {}
        assert read_journal(path).existing == {A}

    def test_what_was_there_is_noted_so_that_its_loss_shows(self, world, tmp_path):
        applied(world, [server("a"), server("b")])  # a journal somebody deleted
        applied(world, [server("a"), server("b", size=2)], journal=tmp_path / "journal")
        del world.things[A]
        made = plan(world, [server("a"), server("b", size=2)], journal=tmp_path / "journal")
        assert made.pending[0].reason == "is gone from the world"

    def test_a_plan_without_changes_leaves_no_trace(self, world, tmp_path):
        path = tmp_path / "journal"
        applied(world, [server("a")], journal=path)
        before = path.read_bytes()
        applied(world, [server("a")], journal=path)
        assert path.read_bytes() == before

    def test_no_step_begins_without_its_note(self, world, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        spec = [server("a"), server("b", on=["server.a"])]
        made, seen = plan(world, spec), look(world, spec)
        with Journal.open(tmp_path / "journal") as journal:
            monkeypatch.setattr(os, "fsync", full)
            result = apply_plan(made, spec, seen, world.kinds(), journal=journal)
            monkeypatch.undo()
            with pytest.raises(JournalError):
                journal.begin(A, "create")
        assert not world.log
        assert "No space left on device" in result.error().diagnostics[0].detail


def test_events_tell_the_run_from_begin_to_end(world):
    events = []
    applied(world, [server("a")], emit=events.append, run="cafe", now=lambda: 12.5)
    kinds = [type(event) for event in events]
    assert kinds == [RunStarted, StepStarted, StepDone, RunFinished]
    assert events[0] == RunStarted(12.5, "cafe", "test", "apply", 1)


def test_skipped_steps_are_told_too(world):
    world.fuse = Fuse(at=1, error=CinderError("no"))
    events = []
    apply(world, [server("a"), app("b", on=["server.a"])], emit=events.append)
    (skipped,) = [event for event in events if isinstance(event, StepSkipped)]
    assert (skipped.address, skipped.because) == (B, A)


def test_destroying_leaves_nothing_and_says_what_went(world):
    applied(world, stack())
    result = applied(world, [], mode=Mode.DESTROY)
    assert not world.things
    assert result.count(Outcome.DONE) == 4


def test_a_kind_nobody_provides_is_named_before_anything_is_done(world):
    spec = [server("a")]
    made = plan(world, spec)
    with pytest.raises(CinderError, match="there is no resource kind 'server'"):
        apply_plan(made, spec, look(world, spec), {"app": world.kinds()["app"]})
