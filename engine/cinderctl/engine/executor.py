"""Applying a plan: steps in parallel, each noted in the journal before it begins; what fails stops what stands on
it only.
"""

from __future__ import annotations

import heapq
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import (
    CinderError,
    Diagnostic,
    InterruptedRunError,
)
from cinderctl.engine.events import (
    Event,
    Phase,
    RunFinished,
    RunStarted,
    StepDone,
    StepFailed,
    StepSkipped,
    StepStarted,
)
from cinderctl.engine.journal import Journal, JournalError
from cinderctl.engine.kinds import Declaration, Existence
from cinderctl.engine.observe import Kinds, World, kind_of
from cinderctl.engine.perform import Ended, Work, explain, perform, prepare
from cinderctl.engine.results import ApplyResult, Outcome, ResourceResult
from cinderctl.engine.schedule import StepNode, make_schedule
from cinderctl.engine.steps import Interrupt, RunningStep
from cinderctl.plans.model import Action, Change, Plan

__all__ = ["ApplyResult", "Outcome", "ResourceResult", "apply_plan"]


def apply_plan(
    plan: Plan,
    declarations: Iterable[Declaration],
    world: World,
    kinds: Kinds,
    *,
    journal: Journal | None = None,
    emit: Callable[[Event], None] = lambda _event: None,
    parallelism: int = 10,
    interrupt: Interrupt | None = None,
    look_again: bool = True,
    patience: float = 10.0,
    cost: Callable[[Change, Phase], float] = lambda _change, _phase: 1.0,
    debug: bool = False,
    run: str = "",
    now: Callable[[], float] = time.time,
) -> ApplyResult:
    """Do what the plan shows and no more. `world` is what the plan was made from, or for a saved plan what was
    observed again. `emit` is called from the calling thread only. With `look_again` each resource is observed once
    more right before its step, and a step whose resource moved fails, or cannot be seen for `patience` seconds.
    `cost` estimates steps for the order in which ready ones start.

    Raises: CinderError with the plan's errors, before anything is done; InterruptedRunError at the second
    interrupt, while steps still run in daemon threads. All other failures are in the result.
    """
    if plan.errors:
        raise CinderError(plan.errors)
    for change in plan.pending:
        kind_of(kinds, change.address)
    running = _Run(
        plan,
        {item.address: item for item in declarations},
        world,
        kinds,
        journal=journal,
        emit=emit,
        parallelism=parallelism,
        interrupt=interrupt or Interrupt(),
        look_again=look_again,
        patience=patience,
        cost=cost,
        debug=debug,
        run=run or secrets.token_hex(4),
        now=now,
    )
    return running.go()


@dataclass(frozen=True, slots=True)
class _Finished:
    """What a worker puts into the inbox."""

    index: int
    ended: Ended
    seconds: float
    journal_error: JournalError | None = None


class _Run:
    """The scheduler. All of its state belongs to the calling thread; workers see only the step they are given."""

    def __init__(
        self,
        plan: Plan,
        declarations: Mapping[Address, Declaration],
        world: World,
        kinds: Kinds,
        *,
        journal: Journal | None,
        emit: Callable[[Event], None],
        parallelism: int,
        interrupt: Interrupt,
        look_again: bool,
        patience: float,
        cost: Callable[[Change, Phase], float],
        debug: bool,
        run: str,
        now: Callable[[], float],
    ) -> None:
        self._plan, self._world, self._kinds, self._journal = plan, world, kinds, journal
        self._emit, self._interrupt, self._debug, self._run, self._now = emit, interrupt, debug, run, now
        self._parallelism = max(1, parallelism)
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._orders: SimpleQueue[StepNode | None] = SimpleQueue()
        self._nodes = make_schedule(plan, cost)
        self._ready: list[tuple[float, int]] = []
        self._parked: dict[str, list[tuple[float, int]]] = {}
        self._of_kind: dict[str, int] = {}
        self._running: dict[int, RunningStep | None] = {}
        self._doomed: dict[int, Address] = {}
        self._results: dict[Address, ResourceResult] = {}
        self._left = {node.index for node in self._nodes if node.phase}
        self._settled = 0
        self._workers = 0
        self._stopped = False
        self._fatal: list[Diagnostic] = []
        self._work = Work(
            cluster=plan.cluster,
            kinds=kinds,
            declarations=declarations,
            observations=world.everything(),
            outputs={},
            emit=self._inbox.put,
            now=now,
            look_again=look_again,
            patience=patience,
            stopping=threading.Event(),
        )

    def go(self) -> ApplyResult:
        began = time.monotonic()
        self._emit(RunStarted(self._now(), self._run, self._plan.cluster, self._plan.mode.value, len(self._left)))
        self._interrupt.listen(self._inbox)
        if self._start_journal():
            # The roots first: a root without work sets free what follows at once, and nothing may be set free twice.
            for node in [node for node in self._nodes if not node.waits]:
                self._make_ready(node)
            self._loop()
        for index in sorted(self._left):
            self._skip(self._nodes[index], None, "the run was stopped before it")
        return self._finish(time.monotonic() - began)

    def _start_journal(self) -> bool:
        """Whether the run may go on. A plan without changes leaves no trace."""
        if self._journal is None or not self._nodes:
            return True
        present = [key for key, item in self._work.observations.items() if _is_there(item.existence, item.foreign)]
        pending = {change.address for change in self._plan.changes if change.action is not Action.NO_OP or change.held}
        settled = [address for address in self._journal.history.unfinished if address not in pending]
        try:
            self._journal.start_run(self._run, self._plan.mode.value, present=present, settled=settled)
        except JournalError as error:
            self._fatal += error.diagnostics
            return False
        return True

    def _loop(self) -> None:
        while self._settled < len(self._nodes):
            self._check_interrupt()
            self._dispatch()
            if not self._running:
                if self._settled == len(self._nodes) or self._stopped:
                    break
                continue
            self._receive(self._inbox.get())
        for _ in range(self._workers):
            self._orders.put(None)
        while not self._inbox.empty():
            self._receive(self._inbox.get())

    def _receive(self, message: Any) -> None:
        match message:
            case _Finished():
                self._take(message)
            case Interrupt():
                pass  # looked at before each round
            case (int() as index, RunningStep() as step, StepStarted() as event):
                self._running[index] = step
                if self._stopped:
                    step.cancel()
                self._emit(event)
            case _:
                self._emit(message)

    def _check_interrupt(self) -> None:
        if self._interrupt.immediate:
            hint = "running steps were left as they were; run the command again to go on"
            raise InterruptedRunError(Diagnostic("the run was stopped at once", hint=hint))
        if self._interrupt.requested and not self._stopped:
            self._stop()

    def _stop(self) -> None:
        self._stopped = True
        self._work.stopping.set()
        for step in self._running.values():
            if step is not None:
                step.cancel()

    def _dispatch(self) -> None:
        while self._ready and len(self._running) < self._parallelism and not self._stopped:
            entry = heapq.heappop(self._ready)
            node = self._nodes[entry[1]]
            assert node.change is not None  # noqa: S101 - steps without work never become ready
            kind = node.change.address.kind
            if self._of_kind.get(kind, 0) >= max(1, kind_of(self._kinds, node.change.address).parallelism):
                heapq.heappush(self._parked.setdefault(kind, []), entry)
                continue
            self._of_kind[kind] = self._of_kind.get(kind, 0) + 1
            self._running[node.index] = None
            if len(self._running) > self._workers:
                self._workers += 1
                threading.Thread(target=self._serve, name=f"step-{self._workers}", daemon=True).start()
            self._orders.put(node)

    def _serve(self) -> None:
        """A worker: daemon threads, so that a second interrupt need not wait for a hanging step."""
        while (node := self._orders.get()) is not None:
            began = time.monotonic()
            ended, trouble = self._step(node)
            self._inbox.put(_Finished(node.index, ended, time.monotonic() - began, trouble))

    def _step(self, node: StepNode) -> tuple[Ended, JournalError | None]:
        change = node.change
        assert change is not None  # noqa: S101 - as above
        try:
            step = prepare(self._work, change, node.phase)
            begun = self._journal.begin(change.address, node.phase) if self._journal else 0
        except JournalError as error:
            return Ended(error=error), error
        except Exception as error:  # noqa: BLE001 - becomes the step's failure
            return Ended(error=error), None
        self._inbox.put((node.index, step, StepStarted(self._now(), change.address, node.phase, change)))
        began = time.monotonic()
        ended = perform(self._work, change, node.phase, step)
        if self._journal:
            outcome, detail = _outcome(ended), str(ended.error or "") if isinstance(ended.error, CinderError) else ""
            try:
                self._journal.end(begun, outcome.value, time.monotonic() - began, detail)
            except JournalError as error:
                return ended, error
        return ended, None

    def _take(self, finished: _Finished) -> None:
        node = self._nodes[finished.index]
        change = node.change
        assert change is not None  # noqa: S101 - as above
        del self._running[node.index]
        kind = change.address.kind
        self._of_kind[kind] -= 1
        if self._parked.get(kind):
            heapq.heappush(self._ready, heapq.heappop(self._parked[kind]))
        if finished.journal_error is not None and not self._stopped:
            self._fatal += finished.journal_error.diagnostics
            self._stop()
        if finished.ended.error is None:
            self._done(node, change, finished)
        else:
            self._failed(node, change, finished, finished.ended.error)
        self._settle(node)

    def _done(self, node: StepNode, change: Change, finished: _Finished) -> None:
        if node.phase != "delete":
            self._work.outputs[change.address] = finished.ended.outputs or {}
        self._note(ResourceResult(change.address, change.action, Outcome.DONE, finished.seconds, change.reason))
        self._emit(StepDone(self._now(), change.address, node.phase, change.action, finished.seconds))

    def _failed(self, node: StepNode, change: Change, finished: _Finished, error: BaseException) -> None:
        outcome = _outcome(finished.ended)
        journal_failed = error is finished.journal_error
        problems = () if journal_failed else explain(error, change, debug=self._debug)
        if outcome is Outcome.INTERRUPTED:
            problems = ()
        log = finished.ended.log
        self._doomed[node.index] = change.address
        self._note(
            ResourceResult(
                change.address, change.action, outcome, finished.seconds, change.reason, diagnostics=problems, log=log
            )
        )
        self._emit(
            StepFailed(
                self._now(),
                change.address,
                node.phase,
                change.action,
                finished.seconds,
                problems,
                log,
                outcome is Outcome.INTERRUPTED,
            )
        )

    def _settle(self, node: StepNode) -> None:
        """Release what waits for this step. Steps without work and doomed ones settle at once, without recursion."""
        settled = [node]
        for done in settled:
            self._settled += 1
            self._left.discard(done.index)
            because = self._doomed.get(done.index)
            for index in done.followers:
                follower = self._nodes[index]
                follower.waits -= 1
                if because is not None and follower.change is not None:
                    self._doomed.setdefault(index, because)
                if follower.waits:
                    continue
                if index in self._doomed and follower.phase:
                    cause = self._doomed[index]
                    self._skip(follower, cause, f"stands on {cause}, which {_words(self._results[cause].outcome)}")
                    settled.append(follower)
                elif follower.phase:
                    self._make_ready(follower)
                else:
                    settled.append(follower)

    def _make_ready(self, node: StepNode) -> None:
        if node.phase:
            heapq.heappush(self._ready, (-node.weight, node.index))
        else:
            self._settle(node)

    def _skip(self, node: StepNode, because: Address | None, reason: str) -> None:
        assert node.change is not None  # noqa: S101 - as above
        address, action = node.change.address, node.change.action
        outcome = Outcome.INTERRUPTED if because is None and self._interrupt.requested else Outcome.SKIPPED
        known = self._results.get(address)
        if known is None or known.outcome is Outcome.DONE:
            self._note(ResourceResult(address, action, outcome, reason=reason, because=because))
        self._emit(StepSkipped(self._now(), address, node.phase, action, because, reason))

    def _note(self, result: ResourceResult) -> None:
        """The two steps of a replacement make one line: the later word, the time of both."""
        before = self._results.get(result.address)
        if before is not None:
            result = ResourceResult(
                result.address,
                result.action,
                result.outcome,
                before.seconds + result.seconds,
                result.reason,
                result.because,
                result.diagnostics,
                result.log or before.log,
            )
        self._results[result.address] = result

    def _finish(self, seconds: float) -> ApplyResult:
        interrupted = self._interrupt.requested
        results = tuple(self._results[item.address] for item in self._plan.pending if item.address in self._results)
        failed = any(item.outcome is not Outcome.DONE for item in results)
        if self._journal is not None and self._nodes and not self._fatal:
            outcome = "interrupted" if interrupted else "failed" if failed else "done"
            try:
                self._journal.finish_run(self._run, outcome, seconds)
            except JournalError as error:
                self._fatal += error.diagnostics
        for address, observation in self._work.observations.items():
            if observation.existence is Existence.PRESENT and address not in self._work.outputs:
                self._work.outputs[address] = observation.outputs
        result = ApplyResult(
            self._run,
            results,
            seconds,
            interrupted and failed,
            tuple(self._fatal),
            self._work.outputs,
        )
        self._emit(
            RunFinished(
                self._now(),
                self._run,
                seconds,
                result.count(Outcome.DONE),
                result.count(Outcome.FAILED),
                result.count(Outcome.SKIPPED) + result.count(Outcome.INTERRUPTED),
                result.interrupted,
                result.diagnostics,
            )
        )
        return result


def _is_there(existence: Existence, foreign: str) -> bool:
    return existence is Existence.PRESENT and not foreign


def _words(outcome: Outcome) -> str:
    return "was interrupted" if outcome is Outcome.INTERRUPTED else "failed"


def _outcome(ended: Ended) -> Outcome:
    if ended.error is None:
        return Outcome.DONE
    return Outcome.INTERRUPTED if isinstance(ended.error, InterruptedRunError) else Outcome.FAILED
