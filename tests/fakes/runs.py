"""Plan and apply over a world in memory, in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from cinderctl.engine.events import Event
from cinderctl.engine.executor import ApplyResult, apply_plan
from cinderctl.engine.journal import Journal, read_journal
from cinderctl.engine.kinds import Declaration
from cinderctl.engine.observe import World, observe_world
from cinderctl.engine.planner import Steering, make_plan
from cinderctl.plans.model import Mode, Plan
from tests.fakes.world import CLUSTER, MemoryWorld


def look(world: MemoryWorld, declarations: Iterable[Declaration]) -> World:
    return observe_world(declarations, world.kinds(), CLUSTER, parallelism=2)


def plan(
    world: MemoryWorld,
    declarations: Iterable[Declaration],
    *,
    mode: Mode = Mode.APPLY,
    steering: Steering | None = None,
    journal: Path | None = None,
) -> Plan:
    declarations = list(declarations)
    history = read_journal(journal) if journal else None
    return make_plan(
        declarations,
        look(world, declarations),
        world.kinds(),
        cluster=CLUSTER,
        mode=mode,
        steering=steering,
        unfinished=history.unfinished if history else None,
        known=history.existing if history else (),
    )


def apply(
    world: MemoryWorld,
    declarations: Iterable[Declaration],
    *,
    mode: Mode = Mode.APPLY,
    steering: Steering | None = None,
    journal: Path | None = None,
    emit: Callable[[Event], None] = lambda _event: None,
    parallelism: int = 4,
    **options: Any,
) -> ApplyResult:
    declarations = list(declarations)
    made = plan(world, declarations, mode=mode, steering=steering, journal=journal)
    with Journal.open(journal) if journal else nullcontext() as opened:
        return apply_plan(
            made,
            declarations,
            look(world, declarations),
            world.kinds(),
            journal=opened,
            emit=emit,
            parallelism=parallelism,
            **options,
        )


def applied(world: MemoryWorld, declarations: Iterable[Declaration], **options: Any) -> ApplyResult:
    """Apply, and raise what went wrong."""
    result = apply(world, declarations, **options)
    error = result.error()
    if error is not None:
        raise error
    return result
