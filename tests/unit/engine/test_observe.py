"""Looking at the world: all of it, in parallel, and honest about what cannot be seen."""

from __future__ import annotations

import threading

import pytest

from cinderctl.core.diagnostics import CinderError, TransientError, UnobservableError
from cinderctl.engine.kinds import Existence
from cinderctl.engine.observe import observe_world
from tests.fakes.runs import applied, look
from tests.fakes.world import CLUSTER, MemoryWorld, address, app, server

A = address("server.a")


@pytest.fixture
def world() -> MemoryWorld:
    return MemoryWorld()


def test_declared_things_are_observed_and_the_rest_of_ours_is_found(world):
    applied(world, [server("a"), server("old")])
    world.foreign(address("server.theirs"), "somebody")
    seen = look(world, [server("a"), app("b")])
    assert {str(key): item.existence.value for key, item in seen.observations.items()} == {
        "server.a": "present",
        "app.b": "absent",
    }
    assert [str(item.address) for item in seen.orphans] == ["server.old"]
    assert seen.get(address("server.old")).existence is Existence.PRESENT
    assert seen.get(address("server.never")).existence is Existence.ABSENT


def test_a_hiccup_gets_a_second_look(world):
    applied(world, [server("a")])
    kinds = world.kinds()
    real, tries = kinds["server"].observe, []

    def observe(where, want, scope):
        tries.append(where)
        if len(tries) == 1:
            raise TransientError("reset by peer", retry_after=0)
        return real(where, want, scope)

    kinds["server"].observe = observe
    assert observe_world([server("a")], kinds, CLUSTER).get(A).existence is Existence.PRESENT


def test_what_cannot_be_seen_is_unknown_with_its_reason_and_place(world):
    world.unseen[A] = UnobservableError("forbidden")
    world.unlisted["app"] = UnobservableError("the server is down")
    seen = look(world, [server("a")])
    observation = seen.observations[A]
    assert observation.existence is Existence.UNKNOWN
    assert (observation.unknown.summary, observation.unknown.address) == ("forbidden", A)
    assert seen.undiscovered["app"].summary == "the server is down"


def test_only_what_is_asked_for_is_looked_at(world):
    applied(world, [server("a"), server("b")])
    seen = observe_world([server("a")], world.kinds(), CLUSTER, only=[address("server.b")])
    assert [str(item) for item in seen.observations] == ["server.b"]
    assert not seen.orphans


def test_a_fault_in_a_kind_shows_its_place_when_asked(world):
    world.unseen[A] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        observe_world([server("a")], world.kinds(), CLUSTER, debug=True)


def test_no_more_looks_at_once_than_allowed(world):
    kinds = world.kinds()
    real, running, most, lock = kinds["server"].observe, [0], [0], threading.Lock()

    def observe(where, want, scope):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        found = real(where, want, scope)
        with lock:
            running[0] -= 1
        return found

    kinds["server"].observe = observe
    told = []
    declarations = [server(str(index)) for index in range(40)]
    observe_world(declarations, kinds, CLUSTER, parallelism=3, on_progress=lambda *at: told.append(at))
    assert most[0] <= 3
    assert told[-1] == (42, 42), "forty looks and two kinds listed"


def test_a_kind_that_nobody_provides_is_named(world):
    with pytest.raises(CinderError, match="there is no resource kind 'server'"):
        observe_world([server("a")], {}, CLUSTER)
