"""Everything a plan is made from, looked up once, and the draft that the decisions add up to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic
from cinderctl.engine.decide import Decision
from cinderctl.engine.graph import ResourceGraph
from cinderctl.engine.holds import Edges, Holds, Steering, find_holds, join_edges
from cinderctl.engine.kinds import Declaration, Existence, Observation
from cinderctl.engine.observe import Kinds, World
from cinderctl.engine.refs import plain_inputs
from cinderctl.plans.model import Mode

__all__ = ["Draft", "Scene", "Stuck", "make_scene"]


@dataclass(frozen=True, slots=True)
class Stuck:
    """A resource that would have to be replaced (`reason`) and cannot (`why`)."""

    reason: str
    why: str
    protected: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything a plan is made from, looked up once. `blind`: why nothing may be torn down, since nobody knows what
    stands on it; "" when all was seen."""

    cluster: str
    world: World
    graph: ResourceGraph
    seen: Mapping[Address, Observation]
    orphans: tuple[Address, ...]
    recorded: Mapping[Address, tuple[Address, ...]]
    edges: Edges
    holds: Holds
    kinds: Kinds
    steering: Steering
    unfinished: Mapping[Address, str]
    known: frozenset[Address]
    declared: Mapping[Address, Mapping[str, Any]]
    unlisted: tuple[str, ...]
    blind: str
    mode: Mode
    stuck: Mapping[Address, Stuck] = field(default_factory=dict)


@dataclass(slots=True)
class Draft:
    """Decisions so far; `held` says of a resource left alone why it is; `stuck` are those that
    would have to be replaced and cannot."""

    decisions: dict[Address, Decision]
    wants: dict[Address, Mapping[str, Any]]
    held: dict[Address, str]
    problems: list[Diagnostic]
    stuck: dict[Address, Stuck]


def make_scene(  # noqa: PLR0917 - the arguments of `make_plan`, passed on
    declarations: Sequence[Declaration],
    world: World,
    kinds: Kinds,
    cluster: str,
    mode: Mode,
    steering: Steering,
    unfinished: Mapping[Address, str],
    known: Collection[Address],
) -> Scene:
    graph = ResourceGraph.from_declarations(declarations)
    seen = world.everything()
    for address in graph.order:
        if address not in seen:
            seen[address] = Observation.absent(address)
    recorded: dict[Address, tuple[Address, ...]] = {}
    for address, observation in seen.items():
        if observation.existence is Existence.PRESENT and observation.record is not None:
            recorded[address] = observation.record.depends_on
    edges = join_edges(graph, recorded)
    holds = find_holds(graph, seen, edges, cluster=cluster, mode=mode, steering=steering, listed=world.listed)
    return Scene(
        cluster=cluster,
        world=world,
        graph=graph,
        seen=seen,
        orphans=tuple(address for address in sorted(seen) if address not in graph.declarations)
        if len(seen) > len(graph.order)
        else (),
        recorded=recorded,
        edges=edges,
        holds=holds,
        kinds=kinds,
        steering=steering,
        unfinished=unfinished,
        known=frozenset(known).union(*recorded.values()),
        unlisted=_unlisted(graph, world, holds),
        blind="" if steering.allow_unknown else _blind(world, seen, holds),
        mode=mode,
        declared={address: plain_inputs(declaration) for address, declaration in graph.declarations.items()},
    )


def _blind(world: World, seen: Mapping[Address, Observation], holds: Holds) -> str:
    """What cannot be seen does not tell what it stands on: an edge of the spec may be newer than the thing."""
    for address, observation in seen.items():
        if observation.existence is Existence.UNKNOWN and address not in holds.absent:
            return f"{address}, which may stand on it, could not be seen"
    for kind in world.undiscovered:
        return f"{kind} resources, which may stand on it, could not be listed"
    return ""


def _unlisted(graph: ResourceGraph, world: World, holds: Holds) -> tuple[str, ...]:
    """Kinds of which something may exist that nobody declares. Where all that is declared of a kind cannot exist,
    no more can the rest.
    """
    found = []
    for kind in world.undiscovered:
        declared = [address for address in graph.order if address.kind == kind]
        if not declared or not all(address in holds.absent for address in declared):
            found.append(kind)
    return tuple(found)
