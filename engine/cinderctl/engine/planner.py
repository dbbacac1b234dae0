"""From declarations and observations to a plan. Pure: no I/O, no clock, no random.

The rules, each of which a property test needs:
- What stands on something replaced is replaced too, by declared and by recorded edges, to a fixpoint.
- Tear-down goes first, in reverse recorded order. An orphan that a kept resource still stands on goes last, once that
  resource has let go of it: dropping a small thing from a spec must not rebuild what is above it.
- What cannot be seen is never deleted or replaced, nor is anything changed that stands on it or would take it along.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic
from cinderctl.core.digest import digest_of
from cinderctl.engine.choose import choose_all, choose_destroy
from cinderctl.engine.facts import INFERRED_ABSENT, declarations_digest, facts_of
from cinderctl.engine.graph import closure, teardown_order
from cinderctl.engine.holds import Steering
from cinderctl.engine.kinds import Declaration, Existence
from cinderctl.engine.observe import Kinds, World
from cinderctl.engine.refs import refs_in
from cinderctl.engine.scene import Draft, Scene, make_scene
from cinderctl.plans.model import Action, Change, Mode, Plan

__all__ = ["Steering", "make_plan", "worth_planning_again"]


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
    scene = make_scene(declarations, world, kinds, cluster, mode, steering or Steering(), unfinished or {}, known)
    scene, draft = choose_destroy(scene) if mode is Mode.DESTROY else choose_all(scene)
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


def _changes(scene: Scene, draft: Draft, replaced: Collection[Address]) -> dict[Address, Change]:
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


def _in_order(scene: Scene, draft: Draft, changes: Mapping[Address, Change]) -> list[Change]:
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


def _with_facts(scene: Scene, changes: Sequence[Change]) -> tuple[Change, ...]:
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


def _unobserved(scene: Scene) -> tuple[Diagnostic, ...]:
    found: list[Diagnostic] = []
    for address, observation in scene.seen.items():
        if observation.existence is Existence.UNKNOWN and address not in scene.holds.absent:
            why = observation.unknown or Diagnostic(f"{address} could not be seen")
            declaration = scene.graph.declarations.get(address)
            found.append(why.located(address=address, source=declaration.source if declaration else ""))
    return (*found, *(scene.world.undiscovered[kind] for kind in scene.unlisted))
