"""The graph of steps: which step waits for which, and which to start first.

A replacement is two steps. Building waits until all tear-down is over (a new object may want the name or port of an old
one), but does not care how it went; only what stands on something that failed is stopped by it. Resources that stay as
they are take part as steps without work, so that what stands on them waits for what they stand on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError
from cinderctl.engine.events import Phase
from cinderctl.engine.graph import closure, teardown_order
from cinderctl.plans.model import Action, Change, Plan

__all__ = ["StepNode", "make_schedule"]

_BUILDING: Mapping[Action, Phase] = {
    Action.CREATE: "create",
    Action.REPLACE: "create",
    Action.UPDATE: "update",
    Action.ADOPT: "adopt",
}


@dataclass(slots=True)
class StepNode:
    """`phase` is "" for a step without work. `change` is None for the one that marks the end of the tear-down.

    `waits` counts what it still waits for; `weight` is the longest way to the end of the run from here.
    """

    index: int
    change: Change | None = None
    phase: Phase = ""
    followers: list[int] = field(default_factory=list)
    waits: int = 0
    weight: float = 0.0


def make_schedule(plan: Plan, cost: Callable[[Change, Phase], float] = lambda _change, _phase: 1.0) -> list[StepNode]:
    """The steps of a plan; none when nothing is to be done. `cost` is what a step is expected to take, in any unit."""
    if not plan.pending:
        return []
    nodes: list[StepNode] = []
    torn_down = {
        change.address: _add(nodes, change, "delete")
        for change in plan.changes
        if change.action in (Action.DELETE, Action.REPLACE)
    }
    built = {
        change.address: _add(nodes, change, _BUILDING.get(change.action, ""))
        for change in plan.changes
        if change.action is not Action.DELETE
    }
    for address, node in built.items():
        for item in _change(node).depends_on:
            _edge(built.get(item), node)
        _edge(torn_down.get(address), node)
    waiting = _tear_down_edges(torn_down, built)
    barrier = _add(nodes, None, "")
    for address, node in torn_down.items():
        if address not in waiting:
            _edge(node, barrier)
    if barrier.waits:
        for node in built.values():
            if node.phase:
                _edge(barrier, node)
    _weigh(nodes, cost)
    return nodes


def _tear_down_edges(torn_down: Mapping[Address, StepNode], built: Mapping[Address, StepNode]) -> set[Address]:
    """What stands on something goes first. Returns the deletions that wait for a kept resource to let go."""
    edges = {address: _change(node).recorded for address, node in torn_down.items()}
    position = {address: index for index, address in enumerate(teardown_order(torn_down, edges))}
    for address, node in torn_down.items():
        for item in edges[address]:
            if item in position and position[address] < position[item]:  # a contradiction on the objects is ignored
                _edge(node, torn_down[item])
    waiting = [address for address, node in torn_down.items() if _change(node).after]
    for address in waiting:
        for item in _change(torn_down[address]).after:
            _edge(built.get(item), torn_down[address])
    return set(closure(waiting, lambda address: [item for item in edges[address] if item in torn_down]))


def _weigh(nodes: list[StepNode], cost: Callable[[Change, Phase], float]) -> None:
    missing = [node.waits for node in nodes]
    order = [node.index for node in nodes if not node.waits]
    for index in order:
        for follower in nodes[index].followers:
            missing[follower] -= 1
            if not missing[follower]:
                order.append(follower)
    if len(order) < len(nodes):
        held_up = (nodes[index].change for index, count in enumerate(missing) if count)
        stuck = ", ".join(sorted({str(change.address) for change in held_up if change is not None}))
        raise CinderError("the plan has no order", detail=f"These wait for each other: {stuck}", hint="plan again")
    for index in reversed(order):
        node = nodes[index]
        own = cost(node.change, node.phase) if node.change is not None and node.phase else 0.0
        node.weight = own + max((nodes[item].weight for item in node.followers), default=0.0)


def _add(nodes: list[StepNode], change: Change | None, phase: Phase) -> StepNode:
    node = StepNode(len(nodes), change, phase)
    nodes.append(node)
    return node


def _edge(first: StepNode | None, then: StepNode) -> None:
    if first is not None:
        first.followers.append(then.index)
        then.waits += 1


def _change(node: StepNode) -> Change:
    assert node.change is not None  # noqa: S101 - only the barrier has none, and it is in neither table
    return node.change
