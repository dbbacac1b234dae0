"""From declarations and observations to a plan. Pure: no I/O, no clock, no random.

The rules, each of which a property test needs:
- What stands on something replaced is replaced too, by declared and by recorded edges, to a fixpoint.
- Tear-down goes first, in reverse recorded order. An orphan that a kept resource still stands on goes last, once that
  resource has let go of it: dropping a small thing from a spec must not rebuild what is above it.
- What cannot be seen is never deleted or replaced, nor is anything changed that stands on it or would take it along.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic, Severity
from cinderctl.core.digest import digest_of
from cinderctl.core.values import Ref, redacted
from cinderctl.engine.decide import Circumstances, Decision, decide
from cinderctl.engine.facts import INFERRED_ABSENT, declarations_digest, facts_of
from cinderctl.engine.graph import ResourceGraph, closure, teardown_order
from cinderctl.engine.holds import Edges, Holds, Steering, find_holds, join_edges
from cinderctl.engine.kinds import Declaration, Existence, Observation, replacing_fields
from cinderctl.engine.observe import Kinds, World, kind_of
from cinderctl.engine.refs import plain_inputs, refs_in, resolve
from cinderctl.plans.model import Action, Change, Mode, Plan

__all__ = ["Steering", "make_plan", "worth_planning_again"]

_NOTHING = Decision(Action.NO_OP)


@dataclass(frozen=True, slots=True)
class _Stuck:
    """A resource that would have to be replaced (`reason`) and cannot (`why`)."""

    reason: str
    why: str
    protected: bool


@dataclass(frozen=True, slots=True)
class _Scene:
    """Everything a plan is made from, looked up once."""

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
    mode: Mode
    stuck: Mapping[Address, _Stuck] = field(default_factory=dict)

    @property
    def blind(self) -> str:
        """Why nothing may be torn down: resources of these kinds may stand on it, and could not be listed."""
        kinds = "" if self.steering.allow_unknown else ", ".join(self.world.undiscovered)
        return f"{kinds} resources that may stand on it could not be listed" if kinds else ""


@dataclass(slots=True)
class _Draft:
    """Decisions so far; `held` says of a resource left alone why it is; `stuck` are those that
    would have to be replaced and cannot."""

    decisions: dict[Address, Decision]
    wants: dict[Address, Mapping[str, Any]]
    held: dict[Address, str]
    problems: list[Diagnostic]
    stuck: dict[Address, _Stuck]


def make_plan(
    declarations: Iterable[Declaration],
    world: World,
    kinds: Kinds,
    *,
    cluster: str,
    mode: Mode = Mode.APPLY,
    steering: Steering | None = None,
    unfinished: Mapping[Address, str] | None = None,
    known: Collection[Address] = (),
) -> Plan:
    """What would have to happen. `unfinished` and `known` come from the journal and only sharpen the words: actions
    an earlier run began and did not end well, and resources that were there when it ended. To destroy,
    `declarations` may be empty: all that is ours goes.

    Raises: SpecError for a graph that has no order, UsageError for a steered address that does not exist.
    """
    declarations = tuple(declarations)
    scene = _scene(declarations, world, kinds, cluster, mode, steering or Steering(), unfinished or {}, known)
    scene, draft = _decide_destroy(scene) if mode is Mode.DESTROY else _decide_all(scene)
    replaced = {address for address, item in draft.decisions.items() if item.action is Action.REPLACE}
    changes = _in_order(scene, draft, _changes(scene, draft, replaced))
    return Plan(
        cluster=cluster,
        mode=mode,
        changes=_with_facts(scene, changes),
        spec_digest=declarations_digest(declarations),
        unobserved=_unobserved(scene),
        diagnostics=tuple(draft.problems),
    )


def worth_planning_again(plan: Plan) -> bool:
    """Whether something unseen stands on something this plan changes, or may: after applying it a second look may see
    more."""
    unseen = {problem.address for problem in plan.unobserved}
    pending = {change.address for change in plan.pending}
    if pending and None in unseen:
        return True
    return any(change.address in unseen and pending.intersection(change.depends_on) for change in plan.changes)


def _scene(  # noqa: PLR0917 - the arguments of `make_plan`, passed on
    declarations: Sequence[Declaration],
    world: World,
    kinds: Kinds,
    cluster: str,
    mode: Mode,
    steering: Steering,
    unfinished: Mapping[Address, str],
    known: Collection[Address],
) -> _Scene:
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
    return _Scene(
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
        mode=mode,
        declared={address: plain_inputs(declaration) for address, declaration in graph.declarations.items()},
    )


def _decide_all(scene: _Scene) -> tuple[_Scene, _Draft]:
    """Decide everything declared, again as long as the set of replaced resources grows; then the orphans.

    A resource that would have to be replaced and cannot keeps what stands on it from changing, and that in turn what it
    stands on from being torn down: all is decided anew with it.
    """
    replaced: dict[Address, Address] = {}
    while True:
        draft = _Draft({}, {}, {}, [], {})
        for address in scene.graph.order:
            draft.decisions[address] = _decide_one(scene, draft, address, replaced)
        if draft.stuck.keys() - scene.stuck.keys():
            scene, replaced = _with_stuck(scene, {**scene.stuck, **draft.stuck}), {}
            continue
        roots = [address for address, item in draft.decisions.items() if item.by_itself]
        grown = closure(roots, scene.edges.carries)
        if grown.keys() == replaced.keys():
            break
        replaced = grown
    for address in scene.orphans:
        _decide_orphan(scene, draft, address)
    return scene, draft


def _with_stuck(scene: _Scene, stuck: Mapping[Address, _Stuck]) -> _Scene:
    holds = find_holds(
        scene.graph,
        scene.seen,
        scene.edges,
        cluster=scene.cluster,
        mode=scene.mode,
        steering=scene.steering,
        listed=scene.world.listed,
        stuck=stuck.keys(),
    )
    return replace(scene, holds=holds, stuck=stuck)


def _decide_one(scene: _Scene, draft: _Draft, address: Address, replaced: Mapping[Address, Address]) -> Decision:
    declaration, have, holds = scene.graph.declarations[address], scene.seen[address], scene.holds
    raw = scene.declared[address]
    want = resolve(raw, lambda ref: _output(scene, draft, ref))
    draft.wants[address] = want
    pinned = holds.pinned.get(address, "")
    if have.existence is Existence.UNKNOWN and address not in holds.absent:
        draft.held[address] = pinned
        return _NOTHING
    if pinned.startswith("belongs to"):
        draft.held[address] = f"exists and {pinned}"
        draft.problems.append(_foreign(declaration, pinned))
        return _NOTHING
    if address in holds.absent:
        have = Observation.absent(address)
    source = replaced.get(address)
    about = Circumstances(
        want=want,
        declared=raw,
        edges=scene.graph.dependencies[address],
        replaces=_replacing(scene, address),
        asked=address in scene.steering.replace,
        below=source if source != address else None,
        unfinished=scene.unfinished.get(address, ""),
        known=address in scene.known,
    )
    decision = decide(declaration, have, about)
    if decision.action is Action.NO_OP:
        return decision
    stuck = scene.stuck.get(address)
    reason = pinned or holds.blocked.get(address, "")
    if stuck is None and not reason and decision.by_itself and (address in holds.kept or scene.blind):
        protected = holds.kept.get(address) in holds.protected
        stuck = _Stuck(decision.reason, holds.why_kept(address) if address in holds.kept else scene.blind, protected)
        draft.stuck[address] = stuck
    if stuck is not None:
        draft.held[address] = f"would be replaced ({stuck.reason}), but {stuck.why}"
        draft.problems.append(_cannot_be_replaced(declaration, stuck))
        return _NOTHING
    if reason:
        draft.held[address] = f"would be {_past(decision.action)} ({decision.reason}), but {reason}"
        return _NOTHING
    return decision


def _cannot_be_replaced(declaration: Declaration, stuck: _Stuck) -> Diagnostic:
    return Diagnostic(
        f"{declaration.address} would have to be replaced, but {stuck.why}",
        f"The replacement is needed: {stuck.reason}",
        "set lifecycle.protect to false, or take the change back" if stuck.protected else "",
        severity=Severity.ERROR if stuck.protected else Severity.WARNING,
        address=declaration.address,
        source=declaration.source,
    )


def _output(scene: _Scene, draft: _Draft, ref: Ref) -> Any:
    """An output as it will be, or the reference itself when only applying can tell."""
    decision = draft.decisions[ref.address]
    if decision.action in (Action.CREATE, Action.REPLACE):
        return ref
    volatile = kind_of(scene.kinds, ref.address).volatile_outputs
    if decision.action is Action.UPDATE and ref.output in volatile:
        return ref
    outputs = scene.seen[ref.address].outputs
    return redacted(outputs[ref.output]) if ref.output in outputs else ref


def _decide_orphan(scene: _Scene, draft: _Draft, address: Address) -> None:
    holds = scene.holds
    draft.decisions[address] = _NOTHING
    reason = holds.pinned.get(address) or holds.blocked.get(address)
    if reason:
        unseen = scene.seen[address].existence is Existence.UNKNOWN
        draft.held[address] = reason if unseen else f"would go, but {reason}"
    elif address in holds.kept:
        why = holds.why_kept(address)
        draft.held[address] = f"is no longer in the spec, but {why}"
        draft.problems.append(_left_alone(address, f"{address} is kept though the spec has it no more: {why}"))
    elif scene.blind:
        draft.held[address] = f"is no longer in the spec, but {scene.blind}"
    else:
        draft.decisions[address] = Decision(Action.DELETE, "is no longer in the spec")


def _decide_destroy(scene: _Scene) -> tuple[_Scene, _Draft]:
    draft = _Draft({}, dict(scene.declared), {}, [], {})
    going = {address for address in scene.seen if _goes(scene, address)}
    for address in (*scene.graph.order, *scene.orphans):
        have = scene.seen[address]
        draft.decisions[address] = _NOTHING
        if address in going:
            reason = "everything is destroyed" if have.record is not None else "an interrupted run left it behind"
            draft.decisions[address] = Decision(Action.DELETE, reason)
        elif address in scene.holds.pinned:
            draft.held[address] = scene.holds.pinned[address]
            below = next((item for item in closure([address], scene.edges.needs) if item in going), None)
            if have.existence is Existence.UNKNOWN and below is not None:
                draft.held[address] += f"; if it is there it goes with {below}"
        elif have.existence is Existence.PRESENT:
            why = scene.holds.why_kept(address)
            draft.held[address] = f"stays: {why}"
            draft.problems.append(_left_alone(address, f"{address} is not destroyed: {why}"))
    return scene, draft


def _goes(scene: _Scene, address: Address) -> bool:
    present = scene.seen[address].existence is Existence.PRESENT
    return present and address not in scene.holds.pinned and address not in scene.holds.kept


def _changes(scene: _Scene, draft: _Draft, replaced: Collection[Address]) -> dict[Address, Change]:
    changes = {}
    for address, decision in draft.decisions.items():
        declaration = scene.graph.declarations.get(address)
        record = scene.seen[address].record
        recorded = scene.recorded.get(address, ())
        edges = scene.graph.dependencies.get(address, ())
        after: tuple[Address, ...] = ()
        if decision.action is Action.DELETE and declaration is None:
            above = (item for item in scene.edges.carries(address) if item in scene.graph.declarations)
            after = tuple(sorted(item for item in above if item not in replaced))
        if decision.action is Action.DELETE and record is None:
            recorded = edges  # left by an interrupted create: what the spec says is the best that is known
        changes[address] = Change(
            address=address,
            action=decision.action,
            reason=draft.held.get(address) or decision.reason,
            fields=decision.fields,
            depends_on=edges,
            inputs=draft.wants[address] if declaration else (record.inputs if record else {}),
            source=declaration.source if declaration else "",
            cause=decision.cause,
            recorded=recorded,
            after=after,
            held=address in draft.held,
        )
    return changes


def _in_order(scene: _Scene, draft: _Draft, changes: Mapping[Address, Change]) -> list[Change]:
    """Tear-down, building in creation order, the deletions that wait; last the undeclared that is left alone."""
    deleted = [address for address, item in draft.decisions.items() if item.action is Action.DELETE]
    edges = {address: changes[address].recorded for address in deleted}
    waiting = closure((item for item in deleted if changes[item].after), lambda item: edges.get(item, ()))
    torn_down = teardown_order(deleted, edges)
    gone = set(deleted)
    order = [
        *(address for address in torn_down if address not in waiting),
        *(address for address in scene.graph.order if address not in gone),
        *(address for address in torn_down if address in waiting),
        *(address for address in scene.orphans if address not in gone),
    ]
    return [changes[address] for address in order]


def _with_facts(scene: _Scene, changes: Sequence[Change]) -> tuple[Change, ...]:
    """Add what each change relies on. What stays as it is is relied on when something that changes stands on it."""
    outputs: dict[Address, set[str]] = {}
    for change in changes:
        if change.action in (Action.NO_OP, Action.DELETE):
            continue
        for address in change.depends_on:
            outputs.setdefault(address, set())
        for ref in refs_in(scene.declared[change.address]):
            outputs[ref.address].add(ref.output)
    found = []
    for change in changes:
        pending = change.action is not Action.NO_OP
        if not pending and change.address not in outputs:
            found.append(change)
            continue
        have = scene.seen[change.address]
        if change.address in scene.holds.absent:
            facts = {"existence": INFERRED_ABSENT}
        else:
            want = change.inputs if pending and change.action is not Action.DELETE else None
            facts = facts_of(have, want, sorted(outputs.get(change.address, ())))
        found.append(replace(change, relies_on=facts, fingerprint=digest_of(facts)))
    return tuple(found)


def _unobserved(scene: _Scene) -> tuple[Diagnostic, ...]:
    found: list[Diagnostic] = []
    for address, observation in scene.seen.items():
        if observation.existence is Existence.UNKNOWN and address not in scene.holds.absent:
            why = observation.unknown or Diagnostic(f"{address} could not be seen")
            declaration = scene.graph.declarations.get(address)
            found.append(why.located(address=address, source=declaration.source if declaration else ""))
    return (*found, *(scene.world.undiscovered[kind] for kind in scene.unlisted))


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


def _replacing(scene: _Scene, address: Address) -> frozenset[str]:
    return replacing_fields(kind_of(scene.kinds, address).inputs)


def _foreign(declaration: Declaration, pinned: str) -> Diagnostic:
    return Diagnostic(
        f"{declaration.address} exists and {pinned}",
        "What this cluster did not make is neither changed nor removed",
        "choose another name in the spec, or remove the object by its owner's means",
        address=declaration.address,
        source=declaration.source,
    )


def _left_alone(address: Address, summary: str) -> Diagnostic:
    return Diagnostic(summary, severity=Severity.WARNING, address=address)


def _past(action: Action) -> str:
    return {Action.CREATE: "created", Action.UPDATE: "updated", Action.REPLACE: "replaced"}.get(action, "taken over")
