"""Looking at the world: every declared resource, and all of ours that nobody declares any more."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError, Diagnostic, TransientError
from cinderctl.engine.kinds import Declaration, Existence, Observation, ResourceKind, Scope

__all__ = ["Kinds", "World", "kind_of", "observe_one", "observe_world"]

Kinds = Mapping[str, ResourceKind[Any]]

_ATTEMPTS = 2  # a hiccup gets a second look; clients of kinds retry by themselves too
_LONGEST_PAUSE = 1.0  # seconds: nobody waits longer for a second look


@dataclass(frozen=True, slots=True)
class World:
    """What was seen. `observations` holds the declared resources and those asked for, `orphans` what is ours and
    undeclared.

    `listed` are all addresses that discovery returned, declared ones too. `undiscovered` maps a kind to the reason
    why its objects could not be listed: orphans of that kind may exist.
    """

    cluster: str
    observations: Mapping[Address, Observation] = field(default_factory=dict)
    orphans: tuple[Observation, ...] = ()
    listed: frozenset[Address] = frozenset()
    undiscovered: Mapping[str, Diagnostic] = field(default_factory=dict)

    def get(self, address: Address) -> Observation:
        """What was seen of a resource; one that nobody looked at is absent."""
        return self.observations.get(address) or next(
            (item for item in self.orphans if item.address == address), Observation.absent(address)
        )

    def everything(self) -> dict[Address, Observation]:
        return {**{item.address: item for item in self.orphans}, **self.observations}


def kind_of(kinds: Kinds, address: Address) -> ResourceKind[Any]:
    """Raises: CinderError for a kind nobody provides."""
    try:
        return kinds[address.kind]
    except KeyError:
        summary = f"there is no resource kind {address.kind!r}"
        raise CinderError(Diagnostic(summary, "Known: " + ", ".join(sorted(kinds)), address=address)) from None


def observe_world(
    declarations: Iterable[Declaration],
    kinds: Kinds,
    cluster: str,
    *,
    parallelism: int = 10,
    only: Collection[Address] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    debug: bool = False,
) -> World:
    """Observe what is declared and discover the rest, at most `parallelism` looks at once.

    With `only`, exactly those addresses are looked at, declared or not, and nothing is discovered. What cannot be
    seen becomes an observation of existence unknown; nothing raises for it. `on_progress` is given looks done and
    looks in all. Raises: CinderError for an unknown kind; with `debug`, whatever a kind raised.
    """
    scope = Scope(cluster)
    wanted = {item.address: item.inputs for item in declarations}
    addresses: list[Address] = list(wanted) if only is None else sorted(only)
    for name in {address.kind for address in addresses}:
        kind_of(kinds, Address(name, ""))
    observations: dict[Address, Observation] = {}
    orphans: dict[Address, Observation] = {}
    undiscovered: dict[str, Diagnostic] = {}
    listed: list[Address] = []

    def look(address: Address) -> None:
        kind = kinds[address.kind]
        observations[address] = observe_one(kind, address, wanted.get(address), scope, debug=debug)

    def list_all(kind: ResourceKind[Any]) -> None:
        found = _patiently(lambda: list(kind.discover(scope)), f"cannot list the {kind.kind} resources", debug)
        if isinstance(found, Diagnostic):
            undiscovered[kind.kind] = found
            return
        for item in found:
            listed.append(item.address)
            if item.address not in wanted and _is_ours(item, cluster):
                orphans[item.address] = item

    tasks: list[Callable[[], None]] = []
    if only is None:
        tasks += [lambda kind=kind: list_all(kind) for _, kind in sorted(kinds.items())]  # type: ignore[misc]
    tasks += [lambda address=address: look(address) for address in addresses]  # type: ignore[misc]
    _run_bounded(tasks, parallelism, on_progress)
    ordered = {address: observations[address] for address in addresses}
    found = tuple(orphans[key] for key in sorted(orphans))
    return World(cluster, ordered, found, frozenset(listed), dict(sorted(undiscovered.items())))


def observe_one(
    kind: ResourceKind[Any], address: Address, want: Any, scope: Scope, *, debug: bool = False
) -> Observation:
    """One look, with what went wrong as an observation of existence unknown."""
    found = _patiently(lambda: kind.observe(address, want, scope), f"cannot see {address}", debug)
    return Observation.not_seen(address, found.located(address=address)) if isinstance(found, Diagnostic) else found


def _is_ours(observation: Observation, cluster: str) -> bool:
    if observation.existence is Existence.ABSENT or observation.foreign:
        return False
    return observation.record is None or observation.record.cluster == cluster


def _patiently(look: Callable[[], Any], summary: str, debug: bool) -> Any:
    """What `look` returns, or a diagnostic of why it could not see."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return look()
        except TransientError as error:
            if attempt == _ATTEMPTS:
                return error.diagnostics[0]
            time.sleep(min(error.retry_after, _LONGEST_PAUSE))
        except CinderError as error:
            return error.diagnostics[0]
        except Exception as error:  # a fault in one kind must not hide the rest of the world
            if debug:
                raise
            detail = f"Internal error: {type(error).__name__}: {error}"
            return Diagnostic(summary, detail, "run again with --debug to see where it comes from")
    raise AssertionError("every attempt returns")


def _run_bounded(
    tasks: list[Callable[[], None]], parallelism: int, on_progress: Callable[[int, int], None] | None
) -> None:
    """Run all tasks on daemon threads, so that an interrupted run need not wait for a hanging look."""
    left = deque(tasks)
    failed: list[BaseException] = []
    done = threading.Semaphore(0)

    def work() -> None:
        while not failed:
            try:
                task = left.popleft()
            except IndexError:
                return
            try:
                task()
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread below
                failed.append(error)
            finally:
                done.release()

    for _ in range(min(parallelism, len(tasks))):
        threading.Thread(target=work, name="observe", daemon=True).start()
    for count in range(1, len(tasks) + 1):
        done.acquire()
        if failed:
            raise failed[0]
        if on_progress:
            on_progress(count, len(tasks))
