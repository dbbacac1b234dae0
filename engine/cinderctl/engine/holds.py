"""What must be left alone, and why: what cannot be seen, what is somebody else's, what is protected or steered
around.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic, UsageError
from cinderctl.engine.graph import ResourceGraph, closure
from cinderctl.engine.kinds import Existence, Observation
from cinderctl.plans.model import Mode

__all__ = ["Edges", "Holds", "Steering", "find_holds", "foreign_owner", "join_edges"]

Neighbours = Callable[[Address], Collection[Address]]


@dataclass(frozen=True, slots=True)
class Steering:
    """What the user says about this one run. `targets`: only these and what they need. `exclude`: not these, nor
    what needs them. `replace`: make anew though nothing asks for it. `allow_unknown`: what cannot be seen does not
    keep what it stands on from being replaced.
    """

    targets: tuple[Address, ...] = ()
    exclude: tuple[Address, ...] = ()
    replace: tuple[Address, ...] = ()
    allow_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Edges:
    """Declared and recorded edges together. `needs`: what something stands on; `carries`: what stands on it."""

    needs: Neighbours
    carries: Neighbours


@dataclass(frozen=True, slots=True)
class Holds:
    """`absent`: unseen, but it cannot exist. `pinned`: left alone for its own sake; `blocked`: for the sake of
    something it stands on. `kept`: may not be torn down, and for the sake of which. All map to words, `kept` to an
    address.
    """

    absent: frozenset[Address] = frozenset()
    pinned: Mapping[Address, str] = field(default_factory=dict)
    blocked: Mapping[Address, str] = field(default_factory=dict)
    kept: Mapping[Address, Address] = field(default_factory=dict)
    protected: frozenset[Address] = frozenset()

    def why_kept(self, address: Address) -> str:
        """`it is protected`, `wasm_node.wasi, which stands on it, could not be seen`."""
        on_top = self.kept[address]
        if on_top in self.protected:
            said = "is protected"
        elif on_top in self.pinned:
            said = self.pinned[on_top]
        else:
            said = "is left alone"
        return f"it {said}" if on_top == address else f"{on_top}, which stands on it, {said}"


def join_edges(graph: ResourceGraph, recorded: Mapping[Address, Collection[Address]]) -> Edges:
    """Most resources have recorded just what they declare: only those that differ cost memory."""
    extra_needs: dict[Address, list[Address]] = {}
    extra_carries: dict[Address, list[Address]] = {}
    for address, found in recorded.items():
        declared = graph.dependencies.get(address, ())
        for item in found:
            if item not in declared:
                extra_needs.setdefault(address, []).append(item)
                extra_carries.setdefault(item, []).append(address)

    def both(
        declared: Mapping[Address, tuple[Address, ...]], extra: Mapping[Address, list[Address]]
    ) -> Callable[[Address], Collection[Address]]:
        return lambda address: (*declared.get(address, ()), *extra.get(address, ()))

    return Edges(both(graph.dependencies, extra_needs), both(graph.dependents, extra_carries))


def foreign_owner(observation: Observation, cluster: str) -> str:
    """Whose an object is when it is not ours; "" when it is."""
    if observation.existence is not Existence.PRESENT:
        return ""
    if observation.foreign:
        return observation.foreign
    record = observation.record
    return f"cluster {record.cluster}" if record is not None and record.cluster != cluster else ""


def find_holds(
    graph: ResourceGraph,
    seen: Mapping[Address, Observation],
    edges: Edges,
    *,
    cluster: str,
    mode: Mode,
    steering: Steering,
    listed: Collection[Address] = (),
    stuck: Collection[Address] = (),
) -> Holds:
    """`seen` holds every observation, orphans included. `listed` are known to exist though a closer look may have
    failed. `stuck` are resources that would have to be replaced and cannot.

    Raises: UsageError for a steered address that does not exist.
    """
    _check_steering(steering, seen)
    absent = _inferred_absent(graph, seen, listed, mode)
    pinned: dict[Address, str] = {}
    unknown: set[Address] = set()
    for address, observation in seen.items():
        owner = foreign_owner(observation, cluster)
        if owner:
            pinned[address] = f"belongs to {owner}"
        elif observation.existence is Existence.UNKNOWN and address not in absent:
            pinned[address] = "could not be seen"
            unknown.add(address)
    foreign = pinned.keys() - unknown
    pinned.update((address, "cannot be replaced now") for address in stuck)
    for address in _steered_around(steering, seen, edges, mode):
        pinned.setdefault(address, "is not part of this run")
    protected = frozenset(
        address
        for address, observation in seen.items()
        if observation.existence is Existence.PRESENT and address not in foreign and _protected(graph, observation)
    )
    if mode is Mode.DESTROY:  # what stands on something unseen is deleted, and takes nothing unseen along
        blocked: dict[Address, str] = {}
        holding = [address for address in pinned if address not in unknown and address not in foreign]
    else:
        blocked = _blocked(pinned, edges)
        left = [*pinned, *blocked]
        holding = [item for item in left if item not in foreign and not (steering.allow_unknown and item in unknown)]
    existing = [address for address in holding if _may_exist(seen.get(address), address in absent)]
    kept = _with_origin(closure([*protected, *existing], edges.needs))
    return Holds(absent, pinned, blocked, kept, protected)


def _protected(graph: ResourceGraph, observation: Observation) -> bool:
    """The spec says so now, or the record does when the spec says nothing of the resource any more."""
    declaration = graph.declarations.get(observation.address)
    if declaration is not None:
        return declaration.lifecycle.protect
    return observation.record is not None and observation.record.protect


def _inferred_absent(
    graph: ResourceGraph, seen: Mapping[Address, Observation], listed: Collection[Address], mode: Mode
) -> frozenset[Address]:
    """An edge means "cannot exist without": what stands on something absent is absent, whether it can be seen or not.

    To destroy, all of what it stands on must be absent, so that nothing is left behind on the strength of one lost
    file.
    """
    enough = all if mode is Mode.DESTROY else any
    absent: set[Address] = set()
    inferred: set[Address] = set()
    for address in graph.order:
        existence = seen[address].existence
        if existence is Existence.ABSENT:
            absent.add(address)
        elif existence is Existence.UNKNOWN and address not in listed:
            needed = graph.dependencies[address]
            if needed and enough(item in absent for item in needed):
                absent.add(address)
                inferred.add(address)
    return frozenset(inferred)


def _steered_around(
    steering: Steering, seen: Mapping[Address, Observation], edges: Edges, mode: Mode
) -> Iterable[Address]:
    excluded = list(steering.exclude)
    if steering.targets:
        wanted = closure(steering.targets, edges.carries if mode is Mode.DESTROY else edges.needs)
        excluded += [address for address in seen if address not in wanted]
    return excluded


def _blocked(pinned: Mapping[Address, str], edges: Edges) -> dict[Address, str]:
    reached = _with_origin(closure(pinned, edges.carries))
    return {
        address: f"stands on {origin}, which {pinned[origin]}"
        for address, origin in reached.items()
        if address not in pinned
    }


def _with_origin(reached: Mapping[Address, Address]) -> dict[Address, Address]:
    """From "reached from this one" to "reached from this start"."""
    origins: dict[Address, Address] = {}
    for address, source in reached.items():  # a closure lists nodes after the ones they were reached from
        origins[address] = address if source == address else origins[source]
    return origins


def _may_exist(observation: Observation | None, inferred_absent: bool) -> bool:
    return observation is not None and observation.existence is not Existence.ABSENT and not inferred_absent


def _check_steering(steering: Steering, seen: Mapping[Address, Observation]) -> None:
    problems = []
    for address in (*steering.targets, *steering.exclude, *steering.replace):
        if address not in seen:
            near = difflib.get_close_matches(str(address), [str(item) for item in seen], n=1)
            hint = f"did you mean {near[0]}?" if near else "list what there is with `cinderctl state list`"
            problems.append(Diagnostic(f"there is no resource {address}", hint=hint, address=address))
    if problems:
        raise UsageError(problems)
