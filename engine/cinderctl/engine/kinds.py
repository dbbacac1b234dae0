"""The one protocol between the engine and the resource kinds, and the values that cross it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeVar

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic
from cinderctl.core.record import Record
from cinderctl.plans.model import FieldChange

__all__ = [
    "Declaration",
    "Existence",
    "InputMeta",
    "Lifecycle",
    "Observation",
    "ResourceKind",
    "Scope",
    "Step",
    "input_field",
    "inputs_as_dict",
    "replacing_fields",
]

T = TypeVar("T")


class Existence(StrEnum):
    """Three-valued: what could not be seen is never taken for absent."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class InputMeta:
    """What the engine and the reference pages know of one input field."""

    doc: str
    replaces: bool = False
    unit: str = ""


def input_field(doc: str, *, replaces: bool = False, unit: str = "", default: Any = ...) -> Any:
    """A field of a kind's frozen inputs dataclass. `replaces`: changing it needs a new object."""
    metadata = {"cinderctl": InputMeta(doc, replaces, unit)}
    if default is ...:
        return field(metadata=metadata)
    if isinstance(default, (dict, list)):
        return field(default_factory=type(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def replacing_fields(inputs: type[Any]) -> frozenset[str]:
    """Names of the top-level inputs whose change forces replacement."""
    return frozenset(f.name for f in fields(inputs) if f.metadata["cinderctl"].replaces)


def inputs_as_dict(inputs: Any) -> dict[str, Any]:
    """The inputs as nested dicts and lists; `Ref` and `Secret` leaves stay as they are."""
    return {f.name: getattr(inputs, f.name) for f in fields(inputs)}


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """What the user says about how a resource may change. `ignore`: field paths whose drift is left alone."""

    protect: bool = False
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Declaration:
    """A resource as the spec wants it. `inputs` is an instance of its kind's frozen inputs dataclass.

    `depends_on` holds only true edges: "cannot exist without". References in the inputs are edges by themselves.
    `source` is where the spec says it (`cluster.yaml:7`).
    """

    address: Address
    inputs: Any
    depends_on: tuple[Address, ...] = ()
    source: str = ""
    lifecycle: Lifecycle = Lifecycle()


@dataclass(frozen=True, slots=True)
class Observation:
    """A resource as the world has it.

    `attributes` has the shape of the kind's inputs and holds only what could be observed: an input that is not in it
    is compared with `record.inputs` instead. An object that exists and is not ours is described in `foreign`. `ready`
    is the kind's named `condition`. `changed_by` says who changed a field where the world knows (dotted path →
    "manager at time").
    """

    address: Address
    existence: Existence
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    record: Record | None = None
    foreign: str = ""
    ready: bool = True
    condition: str = ""
    unknown: Diagnostic | None = None
    changed_by: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def absent(cls, address: Address) -> Observation:
        return cls(address, Existence.ABSENT)

    @classmethod
    def not_seen(cls, address: Address, why: Diagnostic) -> Observation:
        return cls(address, Existence.UNKNOWN, unknown=why)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a kind may know while observing: whose world it is, and which resources it will be asked about one by one
    anyway (`discover` may leave those out)."""

    cluster: str
    declared: frozenset[Address] = frozenset()


class Step(Protocol):
    """What a kind is given for one unit of work. All waiting goes through it."""

    @property
    def record(self) -> Record:
        """To be left on the object; for a delete, the record found on it."""
        ...

    def wait_until(
        self, condition: Callable[[], T | None], what: str, *, timeout: float | None = None, interval: float = 0.05
    ) -> T:
        """Call `condition` until it returns something true, at most `timeout` seconds (default: the step's deadline).

        `what` names the condition in progress lines and in the error. A `TransientError` counts as "not yet".
        Raises: DeadlineError, InterruptedRunError.
        """
        ...

    def progress(self, message: str, *, done: int | None = None, total: int | None = None) -> None:
        """Tell the user; `done` of `total` in bytes or items."""
        ...

    def log(self, text: str) -> None:
        """Keep text (a command's output) with the step: shown when the step fails."""
        ...

    def check_cancelled(self) -> None:
        """Raises: InterruptedRunError when the user stopped the run."""
        ...


InputsT_contra = TypeVar("InputsT_contra", contravariant=True)


class ResourceKind(Protocol[InputsT_contra]):
    """The only seam to the world. Synchronous; every call safe to repeat; no printing, no sleeping.

    `create` adopts what an interrupted create left behind. `delete` takes absence for success. `create` and `update`
    return the outputs. `deadline` is seconds for one step. `parallelism` bounds steps of this kind at once.
    `volatile_outputs` names the outputs that an update may change: who refers to one is planned as changing too.
    """

    kind: ClassVar[str]
    inputs: ClassVar[type[Any]]
    deadline: ClassVar[float]
    parallelism: ClassVar[int]
    volatile_outputs: ClassVar[frozenset[str]]

    def discover(self, scope: Scope) -> Iterable[Observation]:
        """All of ours that exists, named by the spec or not."""
        ...

    def observe(self, address: Address, want: InputsT_contra | None, scope: Scope) -> Observation:
        """One resource; `want` helps to find it and says what is worth observing. Never raises for what it cannot see:
        that is `Observation.not_seen`."""
        ...

    def create(self, address: Address, want: InputsT_contra, step: Step) -> Mapping[str, Any]: ...

    def update(
        self, address: Address, want: InputsT_contra, have: Observation, changes: Sequence[FieldChange], step: Step
    ) -> Mapping[str, Any]: ...

    def delete(self, have: Observation, step: Step) -> None: ...
