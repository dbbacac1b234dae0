"""A world in memory, with two kinds of things in it and a fuse that blows at a chosen call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError, Diagnostic
from cinderctl.core.record import Record
from cinderctl.core.values import map_leaves, redacted
from cinderctl.engine.kinds import (
    Declaration,
    Existence,
    Lifecycle,
    Observation,
    ResourceKind,
    Scope,
    Step,
    input_field,
    inputs_as_dict,
)
from cinderctl.plans.model import FieldChange

CLUSTER = "test"


class Crash(BaseException):
    """The process died here. What the world already did stays done."""


@dataclass
class Fuse:
    """Blows at the `at`th changing call (1 is the first), before or after its effect, and tells `blown`. 0 never blows.

    With `error`, that call fails with it and later calls work; without, the process is dead from then on."""

    at: int = 0
    after: bool = False
    error: Exception | None = None
    calls: int = 0
    dead: bool = False
    blown: Callable[[], None] | None = None

    def around(self, effect: Callable[[], Any]) -> Any:
        if self.dead:
            raise Crash
        self.calls += 1
        if self.calls != self.at:
            return effect()
        if self.after:
            effect()
        if self.blown is not None:
            self.blown()
        if self.error is not None:
            raise self.error
        self.dead = True
        raise Crash


@dataclass(frozen=True)
class Thing:
    """An object of the world, as a server would keep it: with defaults of its own and a generation for each making."""

    attributes: Mapping[str, Any]
    record: Record | None
    generation: int
    owner: str = ""
    ready: bool = True


@dataclass
class MemoryWorld:
    """`unseen` addresses cannot be observed, `unlisted` kinds not discovered, each for the reason given.

    `check` asserts at every change that nothing stands on what is not there. `log` lists the changing calls.
    """

    things: dict[Address, Thing] = field(default_factory=dict)
    fuse: Fuse = field(default_factory=Fuse)
    unseen: dict[Address, Exception] = field(default_factory=dict)
    unlisted: dict[str, Exception] = field(default_factory=dict)
    check: bool = False
    log: list[str] = field(default_factory=list)
    made: int = 0
    slow: Callable[[Address, Step], None] | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def kinds(self) -> dict[str, ResourceKind[Any]]:
        kinds: list[ResourceKind[Any]] = [ServerKind(self), AppKind(self)]
        return {kind.kind: kind for kind in kinds}

    def change(self, what: str, address: Address, effect: Callable[[], Any]) -> Any:
        with self.lock:
            self.log.append(f"{what} {address}")
            result = self.fuse.around(effect)
            if self.check:
                self.assert_grounded()
            return result

    def assert_grounded(self) -> None:
        for address, thing in self.things.items():
            for below in thing.record.depends_on if thing.record else ():
                assert below in self.things, f"{address} stands on {below}, which is not there"

    def drift(self, address: Address, **attributes: Any) -> None:
        """Somebody changes an object by hand."""
        thing = self.things[address]
        self.things[address] = replace(thing, attributes={**thing.attributes, **attributes})

    def foreign(self, address: Address, owner: str, **attributes: Any) -> None:
        self.things[address] = Thing(attributes, None, 0, owner)


@dataclass(frozen=True)
class ServerInputs:
    """Inputs of the fake kind `server`."""

    size: Any = input_field("how large", unit="GiB", default=1)
    zone: Any = input_field("where it is", replaces=True, default="a")
    tags: Any = input_field("free words", default={})
    ports: Any = input_field("named ports", default=[])
    password: Any = input_field("not to be shown", default=None)
    note: Any = input_field("applied, but never seen again", default="")


@dataclass(frozen=True)
class AppInputs:
    """Inputs of the fake kind `app`."""

    server: Any = input_field("reference to a server's id", default=None)
    replicas: Any = input_field("how many", default=1)
    volume: Any = input_field("what it is bound to", replaces=True, default="")


class _MemoryKind:
    """What both kinds do."""

    kind: ClassVar[str]
    deadline: ClassVar[float] = 5.0
    parallelism: ClassVar[int] = 10
    volatile_outputs: ClassVar[frozenset[str]] = frozenset({"address"})
    hidden: ClassVar[tuple[str, ...]] = ()

    def __init__(self, world: MemoryWorld) -> None:
        self.world = world

    def discover(self, scope: Scope) -> Iterable[Observation]:
        if self.kind in self.world.unlisted:
            raise self.world.unlisted[self.kind]
        with self.world.lock:
            addresses = [address for address in self.world.things if address.kind == self.kind]
        found = [self._listed(address, scope) for address in addresses]
        return [item for item in found if not item.foreign]

    def _listed(self, address: Address, scope: Scope) -> Observation:
        if address in self.world.unseen:
            return Observation.not_seen(address, unreachable(str(address)))
        return self.observe(address, None, scope)

    def observe(self, address: Address, want: Any, scope: Scope) -> Observation:
        if address in self.world.unseen:
            raise self.world.unseen[address]
        with self.world.lock:
            thing = self.world.things.get(address)
        if thing is None:
            return Observation.absent(address)
        return Observation(
            address,
            Existence.PRESENT,
            attributes={key: value for key, value in thing.attributes.items() if key not in self.hidden},
            outputs=self.outputs(address, thing),
            record=thing.record,
            foreign=thing.owner,
            ready=thing.ready,
            condition="" if thing.ready else "it does not answer",
        )

    def outputs(self, address: Address, thing: Thing) -> dict[str, Any]:
        """`id` is new with each making, `address` follows the size."""
        return {"id": f"{address.name}-{thing.generation}", "address": f"{address.name}:{thing.attributes.get('size')}"}

    def create(self, address: Address, want: Any, step: Step) -> Mapping[str, Any]:
        if self.world.slow:
            self.world.slow(address, step)

        def effect() -> None:
            there = self.world.things.get(address)
            if there is not None and there.owner:
                raise CinderError(f"{address} belongs to {there.owner}")
            if there is None:
                self.world.made += 1
            generation = there.generation if there else self.world.made
            self.world.things[address] = Thing(_stored(want), step.record, generation)

        self.world.change("create", address, effect)
        return self.outputs(address, self.world.things[address])

    def update(
        self, address: Address, want: Any, have: Observation, changes: Sequence[FieldChange], step: Step
    ) -> Mapping[str, Any]:
        if self.world.slow:
            self.world.slow(address, step)

        def effect() -> None:
            there = self.world.things[address]
            kept = {key: value for key, value in there.attributes.items() if key not in _stored(want)}
            self.world.things[address] = replace(
                there, attributes={**kept, **_stored(want)}, record=step.record, ready=True
            )

        self.world.change("update", address, effect)
        return self.outputs(address, self.world.things[address])

    def delete(self, have: Observation, step: Step) -> None:
        if self.world.slow:
            self.world.slow(have.address, step)
        self.world.change("delete", have.address, lambda: self.world.things.pop(have.address, None))


class ServerKind(_MemoryKind):
    kind: ClassVar[str] = "server"
    inputs: ClassVar[type[Any]] = ServerInputs
    hidden: ClassVar[tuple[str, ...]] = ("note",)


class AppKind(_MemoryKind):
    kind: ClassVar[str] = "app"
    inputs: ClassVar[type[Any]] = AppInputs
    parallelism: ClassVar[int] = 4


def server(name: str, *, on: Sequence[str] = (), source: str = "", **inputs: Any) -> Declaration:
    """A declared server; `on` are addresses it stands on, `protect` and `ignore` go into its lifecycle."""
    return _declare("server", ServerInputs, name, on, source, inputs)


def app(name: str, *, on: Sequence[str] = (), source: str = "", **inputs: Any) -> Declaration:
    return _declare("app", AppInputs, name, on, source, inputs)


def address(text: str) -> Address:
    return Address.parse(text)


def unreachable(what: str) -> Diagnostic:
    return Diagnostic(f"{what} does not answer")


def _declare(  # noqa: PLR0917
    kind: str, inputs_type: type[Any], name: str, on: Sequence[str], source: str, inputs: dict[str, Any]
) -> Declaration:
    lifecycle = Lifecycle(inputs.pop("protect", False), tuple(inputs.pop("ignore", ())))
    depends_on = tuple(map(Address.parse, on))
    return Declaration(Address(kind, name), inputs_type(**inputs), depends_on, source, lifecycle)


def _stored(want: Any) -> dict[str, Any]:
    """As a server keeps it: the values, a secret as its digest, and a default nobody asked for."""
    stored: dict[str, Any] = redacted(map_leaves(inputs_as_dict(want), lambda leaf: leaf))
    return {**stored, "created_by": "server default"}
