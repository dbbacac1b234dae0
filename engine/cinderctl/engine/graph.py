"""The graph of declared resources. The one module that imports networkx, and only when a cycle must be named or the
graph is asked for: the walk itself is plain adjacency, since importing networkx costs more than planning 1,000
resources.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic, SpecError
from cinderctl.engine.kinds import Declaration, inputs_as_dict
from cinderctl.engine.refs import refs_in

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["ResourceGraph", "closure", "teardown_order"]

Edges = Mapping[Address, Collection[Address]]


@dataclass(frozen=True, slots=True)
class ResourceGraph:
    """Declarations with their edges: `depends_on` and the references in the inputs.

    `order` is the creation order: dependencies first, ties by address, so the same spec always gives the same plan.
    """

    declarations: Mapping[Address, Declaration]
    dependencies: Mapping[Address, tuple[Address, ...]]
    dependents: Mapping[Address, tuple[Address, ...]]
    order: tuple[Address, ...]

    @classmethod
    def from_declarations(cls, declarations: Iterable[Declaration]) -> ResourceGraph:
        """Raises: SpecError with every duplicate, every missing dependency, and the cycle, each with its spec lines."""
        known: dict[Address, Declaration] = {}
        problems: list[Diagnostic] = []
        for declaration in declarations:
            if declaration.address in known:
                first = known[declaration.address].source
                detail = f"The first one is at {first}" if first else ""
                problems.append(_problem(declaration, f"{declaration.address} is declared twice", detail))
            known[declaration.address] = declaration
        dependencies = {address: _edges(declaration) for address, declaration in known.items()}
        for address, needed in dependencies.items():
            problems += [_missing(known, known[address], item) for item in needed if item not in known]
        if problems:
            raise SpecError(problems)
        dependents: dict[Address, list[Address]] = {address: [] for address in known}
        for address, needed in dependencies.items():
            for item in needed:
                dependents[item].append(address)
        order = _creation_order(dependencies, dependents)
        if len(order) < len(known):
            raise SpecError(_cycle(known, dependencies))
        return cls(known, dependencies, {key: tuple(sorted(item)) for key, item in dependents.items()}, tuple(order))

    @property
    def edges(self) -> Mapping[Address, tuple[Address, ...]]:
        """Address → what it stands on."""
        return self.dependencies

    def longest_remaining(self) -> dict[Address, int]:
        """How many steps the longest chain from here has, itself included."""
        lengths: dict[Address, int] = {}
        for address in reversed(self.order):
            lengths[address] = 1 + max((lengths[item] for item in self.dependents[address]), default=0)
        return lengths

    def stands_on(self, address: Address) -> frozenset[Address]:
        """Everything this resource needs, near or far."""
        return frozenset(closure([address], self.dependencies.__getitem__)) - {address}

    def carries(self, address: Address) -> frozenset[Address]:
        """Everything that needs this resource, near or far."""
        return frozenset(closure([address], self.dependents.__getitem__)) - {address}

    def to_networkx(self) -> nx.DiGraph[Address]:
        """Edges run from a dependency to what stands on it."""
        import networkx as nx  # noqa: PLC0415 - 0.1 s that only those who ask for the graph pay

        graph: nx.DiGraph[Address] = nx.DiGraph()
        graph.add_nodes_from(self.order)
        graph.add_edges_from((item, address) for address in self.order for item in self.dependencies[address])
        return graph


def closure(start: Iterable[Address], neighbours: Callable[[Address], Iterable[Address]]) -> dict[Address, Address]:
    """Everything reachable, the start included: node → the one it was reached from (itself for a start)."""
    reached = {address: address for address in start}
    queue = list(reached)
    for address in queue:
        for item in neighbours(address):
            if item not in reached:
                reached[item] = address
                queue.append(item)
    return reached


def teardown_order(addresses: Collection[Address], recorded: Edges) -> list[Address]:
    """Reverse of the recorded edges: what stands on something goes before it; ties by address, last first.

    Edges found on objects may contradict each other after outside edits. A cycle is then broken at its last
    address, since a tear-down must always be possible.
    """
    standing = dict.fromkeys(addresses, 0)
    for address in addresses:
        for item in recorded.get(address, ()):
            if item in standing and item != address:
                standing[item] += 1
    ranked = sorted(standing, reverse=True)
    rank = {address: index for index, address in enumerate(ranked)}
    ready = [rank[address] for address in ranked if not standing[address]]
    order: list[Address] = []
    done: set[Address] = set()
    left = iter(ranked)
    while len(order) < len(standing):
        if not ready:
            ready.append(rank[next(address for address in left if address not in done)])
        address = ranked[heapq.heappop(ready)]
        if address in done:
            continue
        done.add(address)
        order.append(address)
        for item in recorded.get(address, ()):
            if item in standing and item != address:
                standing[item] -= 1
                if not standing[item] and item not in done:
                    heapq.heappush(ready, rank[item])
    return order


def _edges(declaration: Declaration) -> tuple[Address, ...]:
    found = {ref.address for ref in refs_in(inputs_as_dict(declaration.inputs))}
    found.update(declaration.depends_on)
    return tuple(sorted(found)) if len(found) > 1 else tuple(found)


def _creation_order(dependencies: Edges, dependents: Edges) -> list[Address]:
    ranked = sorted(dependencies, key=lambda address: (address.kind, address.name))
    rank = {address: index for index, address in enumerate(ranked)}
    missing = {address: len(needed) for address, needed in dependencies.items()}
    ready = [rank[address] for address in ranked if not missing[address]]
    order: list[Address] = []
    while ready:
        address = ranked[heapq.heappop(ready)]
        order.append(address)
        for item in dependents[address]:
            missing[item] -= 1
            if not missing[item]:
                heapq.heappush(ready, rank[item])
    return order


def _problem(declaration: Declaration, summary: str, detail: str, hint: str = "") -> Diagnostic:
    return Diagnostic(summary, detail, hint, address=declaration.address, source=declaration.source)


def _missing(known: Mapping[Address, Declaration], declaration: Declaration, wanted: Address) -> Diagnostic:
    near = difflib.get_close_matches(str(wanted), [str(address) for address in known], n=1)
    return _problem(
        declaration,
        f"{declaration.address} needs {wanted}, which is not declared",
        "A resource can only stand on one that the spec declares too",
        f"did you mean {near[0]}?" if near else f"declare {wanted}, or drop what refers to it",
    )


def _cycle(known: Mapping[Address, Declaration], dependencies: Edges) -> list[Diagnostic]:
    import networkx as nx  # noqa: PLC0415 - only to name a cycle

    graph: nx.DiGraph[Address] = nx.DiGraph(
        [(address, item) for address, needed in dependencies.items() for item in needed]
    )
    round_trip = [edge[0] for edge in nx.find_cycle(graph)]
    first = round_trip.index(min(round_trip))
    members = round_trip[first:] + round_trip[:first]
    path = " → ".join(str(address) for address in [*members, members[0]])
    lines = [f"{address} at {known[address].source}" for address in members if known[address].source]
    return [
        _problem(
            known[members[0]],
            f"resources need each other in a circle: {path}" if len(members) > 1 else f"{members[0]} needs itself",
            f"Declared: {', '.join(lines)}" if lines else "",
            "drop one of these edges: nothing in the circle could be created first",
        )
    ]
