"""What happens to each resource: those declared in creation order, then those that nobody declares any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic, Severity
from cinderctl.core.values import Ref, redacted
from cinderctl.engine.decide import Circumstances, Decision, decide
from cinderctl.engine.graph import closure
from cinderctl.engine.holds import find_holds
from cinderctl.engine.kinds import Declaration, Existence, Observation, replacing_fields
from cinderctl.engine.observe import kind_of
from cinderctl.engine.refs import resolve
from cinderctl.engine.scene import Draft, Scene, Stuck
from cinderctl.plans.model import Action

__all__ = ["choose_all", "choose_destroy"]

_NOTHING = Decision(Action.NO_OP)


def choose_all(scene: Scene) -> tuple[Scene, Draft]:
    """Decide everything declared, again as long as the set of replaced resources grows; then the orphans.

    A resource that would have to be replaced and cannot keeps what stands on it from changing, and that in turn what it
    stands on from being torn down: all is decided anew with it.
    """
    replaced: dict[Address, Address] = {}
    while True:
        draft = Draft({}, {}, {}, [], {})
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


def _with_stuck(scene: Scene, stuck: Mapping[Address, Stuck]) -> Scene:
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


def _decide_one(scene: Scene, draft: Draft, address: Address, replaced: Mapping[Address, Address]) -> Decision:
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
        stuck = Stuck(decision.reason, holds.why_kept(address) if address in holds.kept else scene.blind, protected)
        draft.stuck[address] = stuck
    if stuck is not None:
        draft.held[address] = f"would be replaced ({stuck.reason}), but {stuck.why}"
        draft.problems.append(_cannot_be_replaced(declaration, stuck))
        return _NOTHING
    if reason:
        draft.held[address] = f"would be {_past(decision.action)} ({decision.reason}), but {reason}"
        return _NOTHING
    return decision


def _cannot_be_replaced(declaration: Declaration, stuck: Stuck) -> Diagnostic:
    return Diagnostic(
        f"{declaration.address} would have to be replaced, but {stuck.why}",
        f"The replacement is needed: {stuck.reason}",
        "set lifecycle.protect to false, or take the change back" if stuck.protected else "",
        severity=Severity.ERROR if stuck.protected else Severity.WARNING,
        address=declaration.address,
        source=declaration.source,
    )


def _output(scene: Scene, draft: Draft, ref: Ref) -> Any:
    """An output as it will be, or the reference itself when only applying can tell."""
    decision = draft.decisions[ref.address]
    if decision.action in (Action.CREATE, Action.REPLACE):
        return ref
    volatile = kind_of(scene.kinds, ref.address).volatile_outputs
    if decision.action is Action.UPDATE and ref.output in volatile:
        return ref
    outputs = scene.seen[ref.address].outputs
    return redacted(outputs[ref.output]) if ref.output in outputs else ref


def _decide_orphan(scene: Scene, draft: Draft, address: Address) -> None:
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


def choose_destroy(scene: Scene) -> tuple[Scene, Draft]:
    draft = Draft({}, dict(scene.declared), {}, [], {})
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


def _goes(scene: Scene, address: Address) -> bool:
    present = scene.seen[address].existence is Existence.PRESENT
    return present and address not in scene.holds.pinned and address not in scene.holds.kept


def _replacing(scene: Scene, address: Address) -> frozenset[str]:
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
