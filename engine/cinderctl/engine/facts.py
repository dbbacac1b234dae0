"""What a change relies on in the world, as digests small enough to save, and the check that it still holds.

Staleness is by content, never by counter: a run in between that changed nothing leaves a saved plan valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic, StalePlanError
from cinderctl.core.digest import digest_of
from cinderctl.core.values import redacted
from cinderctl.engine.diff import scoped, value_at
from cinderctl.engine.kinds import Declaration, Existence, Observation
from cinderctl.engine.refs import plain_inputs, refs_in, storable
from cinderctl.plans.model import Action, Change, Plan, path_text

__all__ = [
    "INFERRED_ABSENT",
    "check_declarations",
    "check_fresh",
    "declarations_digest",
    "facts_of",
    "moved_facts",
    "relied_on",
]

# Existence of what could not be seen but cannot exist, since something it stands on does not.
INFERRED_ABSENT = "absent with what it stands on"


def facts_of(
    observation: Observation, want: Mapping[str, Any] | None = None, outputs: Iterable[str] = ()
) -> dict[str, str]:
    """Fact → short digest or word: existence, owner, record, the attributes `want` speaks of, the outputs named."""
    if observation.existence is not Existence.PRESENT:
        return {"existence": observation.existence.value}
    record = observation.record
    facts = {
        "existence": observation.existence.value,
        "owner": observation.foreign or (record.cluster if record else ""),
        "record": _short(record.digest) if record else "",
    }
    if want is not None:
        facts["ready"] = "yes" if observation.ready else f"no: {observation.condition}"
        for path, value in scoped(want, redacted(observation.attributes)):
            facts[f"attributes.{path_text(path)}"] = _short(value)
    for name in outputs:
        facts[f"outputs.{name}"] = _short(redacted(observation.outputs.get(name)))
    return facts


def moved_facts(change: Change, observation: Observation, *, during_run: bool = False) -> list[str]:
    """The facts that no longer are what the change relies on, in their order.

    `during_run`: readiness and outputs do not count, since earlier steps of the same run may move them (a supervisor
    that is started again starts all it had). Nor do fields that the change sets: they become what the plan shows from
    wherever they are.
    """
    outputs = [name.removeprefix("outputs.") for name in change.relies_on if name.startswith("outputs.")]
    wanted = change.inputs if "ready" in change.relies_on else None
    now = facts_of(observation, wanted, outputs)
    if change.relies_on.get("existence") == INFERRED_ABSENT and observation.existence is not Existence.PRESENT:
        return []
    if now["existence"] != change.relies_on.get("existence"):
        return ["existence"]
    names = [name for name in change.relies_on if not (during_run and _may_move(change, name))]
    return [name for name in names if now.get(name) != change.relies_on[name]]


def _may_move(change: Change, name: str) -> bool:
    fields = {f"attributes.{path_text(item.path)}" for item in change.fields}
    return name == "ready" or name.startswith("outputs.") or name in fields


def relied_on(plan: Plan) -> frozenset[Address]:
    """The resources to be observed again before a saved plan may be applied."""
    return frozenset(change.address for change in plan.changes if change.relies_on)


def check_fresh(plan: Plan, observations: Mapping[Address, Observation]) -> None:
    """Raises: StalePlanError naming each resource and field that moved since the plan was made."""
    problems: list[Diagnostic] = []
    for change in plan.changes:
        if not change.relies_on:
            continue
        observation = observations.get(change.address, Observation.absent(change.address))
        problems += [_moved(change, name, observation) for name in moved_facts(change, observation)]
    if problems:
        raise StalePlanError(problems)


def declarations_digest(declarations: Iterable[Declaration]) -> str:
    """What the spec says, by content: comments, order and layout of the file do not count; secrets do, by digest."""
    return digest_of(sorted((_said(item) for item in declarations), key=lambda item: str(item[0])))


def check_declarations(plan: Plan, declarations: Iterable[Declaration]) -> None:
    """Raises: StalePlanError when the spec no longer says what the plan was made from, naming what differs."""
    known = {item.address: item for item in declarations}
    if declarations_digest(known.values()) == plan.spec_digest:
        return
    hint = "make the plan again from the spec as it is now"
    planned = {change.address: change for change in plan.changes if change.action is not Action.DELETE}
    problems = [
        Diagnostic(f"the saved plan is stale: {address} is new in the spec", hint=hint, address=address)
        for address in known.keys() - planned.keys()
    ]
    for address, change in planned.items():
        if address not in known:
            problems.append(
                Diagnostic(f"the saved plan is stale: {address} is gone from the spec", hint=hint, address=address)
            )
            continue
        for name, value in plain_inputs(known[address]).items():
            if change.inputs and not any(refs_in(value)) and value != storable(change.inputs.get(name)):
                summary = f"the saved plan is stale: {address} has another {name} in the spec now"
                problems.append(Diagnostic(summary, hint=hint, address=address, path=(name,)))
    problems.sort(key=lambda problem: (str(problem.address), problem.path and str(problem.path[0])))
    raise StalePlanError(problems or Diagnostic("the saved plan is stale: the spec changed since", hint=hint))


def _said(declaration: Declaration) -> list[Any]:
    life = declaration.lifecycle
    return [
        str(declaration.address),
        storable(plain_inputs(declaration)),
        sorted(str(address) for address in declaration.depends_on),
        life.protect,
        sorted(life.ignore),
    ]


def _moved(change: Change, name: str, observation: Observation) -> Diagnostic:
    path = tuple(name.removeprefix("attributes.").split("."))
    if name == "existence":
        was, now = change.relies_on["existence"], observation.existence.value
        detail = f"It was {was} when the plan was made and is {now} now"
    elif name.startswith("attributes."):
        value = value_at(redacted(observation.attributes), path)
        detail = f"It is {value!r} now" if value else "It has another value now"
    else:
        detail = f"Its {name.removeprefix('outputs.')} is another now"
    return Diagnostic(
        f"the saved plan is stale: {change.address} moved: {path_text(path)}",
        detail,
        "make the plan again and look at what it says now",
        address=change.address,
        path=path,
    )


def _short(value: Any) -> str:
    return digest_of(value).removeprefix("sha256:")[:16]
