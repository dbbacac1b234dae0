"""What must hold for any spec, any earlier spec, and any instant at which the process dies."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import StalePlanError, UnobservableError
from cinderctl.core.values import Ref, Secret
from cinderctl.engine.executor import apply_plan
from cinderctl.engine.facts import check_declarations, check_fresh, relied_on
from cinderctl.engine.kinds import Declaration
from cinderctl.engine.observe import observe_world
from cinderctl.plans.model import Action, Mode
from cinderctl.plans.planfile import load_plan, save_plan
from cinderctl.plans.render_json import render_json
from cinderctl.plans.render_text import render_text
from tests.fakes.runs import applied, apply, plan
from tests.fakes.world import CLUSTER, Fuse, MemoryWorld, app, server

# A long run: CINDERCTL_EXAMPLES=10000 pytest tests/unit/engine/test_properties.py
EXAMPLES = int(os.environ.get("CINDERCTL_EXAMPLES", "40"))
bounded = settings(max_examples=EXAMPLES, deadline=None, derandomize="CINDERCTL_EXAMPLES" not in os.environ)

Spec = list[Declaration]
NAMES = ["server.a", "server.b", "server.c", "app.d", "app.e", "app.f"]


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """Any graph over a few names: edges point to what comes earlier in an order that differs from spec to spec."""
    order = draw(st.permutations(NAMES))
    names = order[: draw(st.integers(0, len(order)))]
    found = []
    for index, name in enumerate(names):
        kind, short = name.split(".")
        below = draw(st.lists(st.sampled_from(names[:index]), unique=True, max_size=2)) if index else []
        if kind == "server":
            inputs: dict[str, Any] = {
                "size": draw(st.integers(1, 2)),
                "zone": draw(st.sampled_from("ab")),
                "tags": draw(st.dictionaries(st.sampled_from("xy"), st.integers(0, 1), max_size=2)),
                "password": draw(st.sampled_from([None, Secret("one"), Secret("two")])),
                "note": draw(st.sampled_from(["", "n"])),
            }
            found.append(server(short, on=below, **inputs))
            continue
        servers = [item for item in below if item.startswith("server.")]
        output = draw(st.sampled_from(["id", "address"]))
        inputs = {
            "server": Ref(Address.parse(servers[0]), output) if servers else None,
            "replicas": draw(st.integers(1, 2)),
            "volume": draw(st.sampled_from(["", "v"])),
        }
        found.append(app(short, on=below, **inputs))
    return found


@st.composite
def outside(draw: st.DrawFn) -> list[tuple[str, str]]:
    """What people do by hand: change a field, or make a thing not ready."""
    return draw(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(["drift", "unready"])), max_size=3))


def meddle(world: MemoryWorld, moves: Sequence[tuple[str, str]]) -> None:
    for name, move in moves:
        address = Address.parse(name)
        thing = world.things.get(address)
        if thing is None:
            continue
        if move == "unready":
            world.things[address] = replace(thing, ready=False)
        else:
            world.drift(address, **({"size": 9} if address.kind == "server" else {"replicas": 9}))


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A new path at each call."""
    directory = tmp_path_factory.mktemp("journals")
    numbers = itertools.count()
    return lambda: directory / f"journal-{next(numbers)}"


def assert_converged(world: MemoryWorld, spec: Spec, journal: Path) -> None:
    assert {item.address for item in spec} == set(world.things)
    again = plan(world, spec, journal=journal)
    assert not again.pending, render_text(again)
    assert not again.diagnostics
    assert not again.unobserved


@bounded
@given(specs(), specs(), outside(), st.sampled_from([1, 4]))
def test_apply_converges_from_any_earlier_spec_and_any_drift(
    journals: Any, earlier: Spec, later: Spec, moves: list[tuple[str, str]], parallelism: int
) -> None:
    world, journal = MemoryWorld(check=True), journals()
    applied(world, earlier, journal=journal, parallelism=parallelism)
    assert_converged(world, earlier, journal)
    meddle(world, moves)
    applied(world, later, journal=journal, parallelism=parallelism)
    assert_converged(world, later, journal)
    applied(world, [], mode=Mode.DESTROY, journal=journal, parallelism=parallelism)
    assert not world.things


@bounded
@given(specs(), specs(), st.integers(1, 12), st.booleans(), st.booleans(), st.booleans())
def test_a_crash_at_any_call_is_mended_by_the_next_run(  # noqa: PLR0917
    journals: Any, earlier: Spec, later: Spec, at: int, after: bool, lose_journal: bool, destroy: bool
) -> None:
    world, journal = MemoryWorld(check=True), journals()
    applied(world, earlier, journal=journal)
    written: list[bytes] = []
    world.fuse = Fuse(at=at, after=after, blown=lambda: written.append(journal.read_bytes()))
    apply(world, later, journal=journal, parallelism=1)
    if written:  # what a killed process leaves: no word after the instant it died
        journal.write_bytes(written[0])
    if lose_journal:
        journal.unlink()
    world.fuse = Fuse()
    if destroy:
        applied(world, [], mode=Mode.DESTROY, journal=journal)
        assert not world.things
    else:
        applied(world, later, journal=journal)
        assert_converged(world, later, journal)


@bounded
@given(specs(), specs(), st.integers(1, 12), st.booleans())
def test_a_crash_while_destroying_is_mended_too(
    journals: Any, earlier: Spec, later: Spec, at: int, after: bool
) -> None:
    world, journal = MemoryWorld(check=True, fuse=Fuse()), journals()
    applied(world, earlier, journal=journal)
    world.fuse = Fuse(at=at, after=after)
    apply(world, earlier, mode=Mode.DESTROY, journal=journal)
    world.fuse = Fuse()
    applied(world, later, journal=journal)
    assert_converged(world, later, journal)


@bounded
@given(specs(), specs(), outside())
def test_a_saved_plan_never_does_more_than_it_shows(earlier: Spec, later: Spec, moves: list[tuple[str, str]]) -> None:
    world = MemoryWorld()
    applied(world, earlier)
    saved = load_plan(save_plan(plan(world, later))).plan
    meddle(world, moves)
    world.log.clear()
    check_declarations(saved, later)
    seen = observe_world(later, world.kinds(), CLUSTER, only=relied_on(saved))
    try:
        check_fresh(saved, seen.observations)
        stale = False
    except StalePlanError:
        stale = True
    result = apply_plan(saved, later, seen, world.kinds())
    shown = set()
    for change in saved.pending:
        shown |= {
            Action.CREATE: {f"create {change.address}"},
            Action.UPDATE: {f"update {change.address}"},
            Action.REPLACE: {f"delete {change.address}", f"create {change.address}"},
            Action.DELETE: {f"delete {change.address}"},
        }[change.action]
    assert set(world.log) <= shown
    assert len(world.log) == len(set(world.log))
    if not stale:
        assert result.error() is None


@bounded
@given(specs(), specs(), st.randoms(use_true_random=False))
def test_a_plan_does_not_depend_on_the_order_of_anything(earlier: Spec, later: Spec, shuffle: random.Random) -> None:
    world, other = MemoryWorld(), MemoryWorld()
    applied(world, earlier)
    mixed = [*later]
    shuffle.shuffle(mixed)
    things = [*world.things.items()]
    shuffle.shuffle(things)
    other.things = dict(things)
    one, two = plan(world, later), plan(other, mixed)
    assert render_text(one, width=100) == render_text(two, width=100)
    assert render_json(one) == render_json(two)
    assert save_plan(one) == save_plan(two)


@bounded
@given(specs(), specs(), st.sets(st.sampled_from(NAMES), max_size=2), st.booleans())
def test_what_cannot_be_seen_is_left_alone_with_all_that_hangs_on_it(
    earlier: Spec, later: Spec, unseen: set[str], listed: bool
) -> None:
    world = MemoryWorld(check=True)
    applied(world, earlier)
    hidden = {Address.parse(name) for name in unseen} & world.things.keys()
    world.unseen = {item: UnobservableError(f"{item} does not answer") for item in hidden}
    if not listed:
        world.unlisted = {item.kind: UnobservableError(f"{item} does not answer") for item in hidden}
    before = {item: world.things[item] for item in hidden}
    error = apply(world, later, patience=0.01).error()
    # A new edge to something absent makes an unseen thing look absent: its step then cannot see it, and stops.
    assert error is None or {problem.summary for problem in error.diagnostics} <= {
        f"{item} does not answer" for item in hidden
    }
    assert {item: world.things[item] for item in hidden} == before
    world.unseen, world.unlisted = {}, {}
    applied(world, later)
    assert {item.address for item in later} == set(world.things)
