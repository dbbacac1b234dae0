"""One pod: a task that brings its containers where its spec wants them, and says so.

The loop is level-triggered: whatever happens (a newer pod, a run that ended, a pause that is over) it looks at
everything again, asks `lifecycle.decide` what to do, and starts what takes time as tasks of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from cinderctl.core.diagnostics import CinderError, TransientError
from cinderctl.kube.errors import ConflictError, KubeError, NotFoundError
from cinderctl.wasmnode.admission import Refusal, remarks
from cinderctl.wasmnode.adoption import adopt, end_of, split_run_id
from cinderctl.wasmnode.env import PodFacts
from cinderctl.wasmnode.lifecycle import ContainerState, Ended, Phase, decide, ended, phase_of, restarts
from cinderctl.wasmnode.logs import log_files
from cinderctl.wasmnode.podspec import Pod
from cinderctl.wasmnode.records import Final, PodRecord
from cinderctl.wasmnode.reporting import Reporter
from cinderctl.wasmnode.services import Services
from cinderctl.wasmnode.starting import Started, start_container, why_not
from cinderctl.wasmnode.volumes import Volume, Volumes
from cinderctl.wasmrun.client import RuntimeGoneError
from cinderctl.wasmrun.protocol import RunState

__all__ = ["PodWorker"]

_FORCED_GRACE = 1.0  # seconds for a pod that is gone from the API already
_BACKOFF_SHOWN_AFTER = 1.0  # seconds ErrImagePull is shown before it becomes ImagePullBackOff
_FINAL: tuple[Phase, ...] = ("Succeeded", "Failed")


class PodWorker:
    """`pod`, `record` and `phase` may be read at any time; `update`, `removed`, `run_changed` and `runs_listed` tell of
    the world.
    """

    def __init__(
        self,
        services: Services,
        pod: Pod,
        ip: str,
        *,
        record: PodRecord | None,
        refusal: Refusal | None,
        over: Callable[[str], None],
    ) -> None:
        """`over` is told the uid when nothing of the pod runs any more, possibly more than once."""
        self._services = services
        self._over = over
        self.pod = pod
        self._known = record
        self._refusal = refusal
        self._shape = pod.shape(restart_bare=services.config.restart_bare_pods)
        self._born = services.now()
        started = record.started if record is not None else self._born
        self.record = record or PodRecord(pod.uid, pod.namespace, pod.name, started, ip)
        self.phase: Phase = "Pending"
        self._facts = PodFacts(services.config.node_ip, ip, services.memory, services.cpus)
        self._volumes = Volumes(
            pod, services.pod_dir(pod.uid), services.config, services.objects, self._facts, services.now
        )
        self._volumes_made: asyncio.Task[dict[str, Volume]] | None = None
        self._refresh_at = 0.0
        self._wake = asyncio.Event()
        self._inbox: deque[RunState] = deque()
        self._early: dict[str, RunState] = {}
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._committed: set[str] = set()
        self._stops: dict[str, bool] = {}  # run → whether it was asked for with the forced grace
        self._failures: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._adopted = False
        self._silent = False  # finished or refused before this agent knew the pod: nothing to do or say
        self._gone = False
        self._releasing = False
        self._finished = False
        self._reporter = Reporter(services, self._shape, pod)

    # -- what comes in

    def update(self, pod: Pod) -> None:
        self.pod = self._volumes.pod = pod
        self._wake.set()

    def removed(self) -> None:
        """The pod is gone from the API: stop what runs, clean up, end."""
        self._gone = True
        self._wake.set()

    def run_changed(self, state: RunState) -> None:
        self._inbox.append(state)
        self._wake.set()

    def runs_listed(self) -> None:
        """The runtime is (again) there; its list may hold or lack runs of ours."""
        if self._adopted and not self._silent:
            self._adopt()
        self._wake.set()

    # -- what others read

    @property
    def status(self) -> dict[str, Any] | None:
        """The status last reported or about to be."""
        return dict(self._reporter.last) if self._reporter.last is not None else None

    def log_attempt(self, container: str, *, previous: bool) -> int | None:
        """Which attempt's log is the container's (previous) log; None when there is none."""
        state = self.record.containers.get(container)
        if state is None or state.phase == "waiting":
            return None
        # While a container waits for its next attempt, the last one is what `logs` shows, as with a kubelet.
        attempt = state.attempt - 1 if previous else state.attempt
        return attempt if attempt >= 0 else None

    def attempt_runs(self, container: str, attempt: int) -> bool:
        state = self.record.containers.get(container)
        return state is not None and state.phase == "running" and state.attempt == attempt and not self._finished

    def no_log(self, container: str, *, previous: bool) -> str:
        """Why there is no log, in the kubelet's words."""
        if previous:
            return f'previous terminated container "{container}" in pod "{self.pod.name}" not found'
        state = self.record.containers.get(container)
        reason = state.reason if state is not None else "ContainerCreating"
        words = f"is waiting to start: {reason}"
        return f'container "{container}" in pod "{self.pod.name}" {words}'

    def log_bytes(self, container: str) -> int:
        """Size of the current attempt's log, rotated files included. Blocking."""
        state = self.record.containers[container]
        files = log_files(self._services.log_path(self.pod.uid, container, state.attempt))
        return sum(path.stat().st_size for path in files)

    # -- the loop

    async def run(self) -> None:
        """Until the pod is gone and cleaned up."""
        try:
            while not self._finished:
                self._wake.clear()
                wake_at = self._step()
                if self._finished:
                    break
                timeout = None if wake_at is None else max(0.0, wake_at - self._services.now())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
        finally:
            for task in [*self._tasks, *self._starts.values()]:
                task.cancel()
        await self._clean_up()

    def _step(self) -> float | None:
        """Look at everything, begin what is due; when to look again, if nothing happens before."""
        if not self._adopted:
            needs_runtime = self._refusal is None and not self.pod.terminal
            if needs_runtime and not self._services.runtime.ready.is_set() and not (self._gone and self._known is None):
                return None  # `runs_listed` wakes us
            self._adopted = True
            self._first_look()
        while self._inbox:
            self._take(self._inbox.popleft())
        now = self._services.now()
        if self._silent:
            self._leave()
            return None
        deadline = self._check_deadline(now)
        ending = self.pod.deleting or self._gone or self.record.final is not None
        decision = decide(self._shape, self.record.containers, now, ending=ending)
        if ending:
            self._abandon_starts()
        for name in decision.start:
            self._begin_start(name)
        for name in decision.stop:
            self._begin_stop(name)
        self.phase = self.record.final.phase if self.record.final and decision.done else decision.phase
        shown_at = self._publish(now)
        if decision.done and not self._starts:
            self._leave()
        return min(
            (t for t in (decision.wake_at, deadline, shown_at, self._refresh(now)) if t is not None), default=None
        )

    def _first_look(self) -> None:
        self._adopt()
        if self._refusal is not None and not self._begun():
            self._refuse(self._refusal)
        elif self.pod.terminal and self._known is None:
            self._silent = True
        elif self._known is None and not self.pod.deleting and (ignored := remarks(self.pod)):
            text = f"not supported by a WebAssembly node and ignored: {', '.join(ignored)}"
            self._services.events.pod(self.pod, "Warning", "UnsupportedFields", text)

    def _refuse(self, refusal: Refusal) -> None:
        self._silent = refusal.quiet or self.pod.terminal
        if self.pod.status.get("reason") == refusal.reason or self.pod.terminal:
            return  # said already
        self._services.events.pod(self.pod, "Warning", refusal.reason, refusal.message)
        if not refusal.quiet:
            self._change(final=Final("Failed", refusal.reason, refusal.message))
            return
        self._change(final=Final("Pending", refusal.reason, refusal.message))
        states = {
            name: replace(state, reason=refusal.reason, message=refusal.message)
            for name, state in self.record.containers.items()
        }
        self._change(containers=states)
        self._publish(self._services.now())

    def _begun(self) -> bool:
        return any(state.phase != "waiting" for state in self.record.containers.values())

    # -- containers

    def _adopt(self) -> None:
        found = adopt(self.pod, self._shape, self._record_known(), self._services.runtime.runs, self._services.now())
        for name, state in found.states.items():
            if name not in self._starts:
                self.record = self.record.with_container(name, state)
        for name, how in found.over.items():
            if name not in self._starts:
                self._end(name, how)

    def _record_known(self) -> PodRecord | None:
        return self.record if self.record.containers else None

    def _begin_start(self, name: str) -> None:
        if name in self._starts:
            return
        attempt = self.record.containers[name].next_attempt
        self._starts[name] = asyncio.create_task(self._start(name, attempt), name=f"start {self.pod}/{name}")

    async def _start(self, name: str, attempt: int) -> None:
        container = self.pod.container(name) or {"name": name}
        try:
            if self._volumes_made is None:
                self._volumes_made = asyncio.create_task(self._volumes.set_up(), name=f"volumes {self.pod}")
            started = await start_container(
                self._services,
                self.pod,
                container,
                attempt,
                facts=self._facts,
                volumes=self._volumes_made,
                commit=lambda: self._committed.add(name),
            )
        except CinderError as error:
            self._failed_to_start(name, container, error)
        else:
            self._running(name, attempt, started)
        finally:
            self._starts.pop(name, None)
            self._committed.discard(name)
            self._wake.set()

    def _running(self, name: str, attempt: int, started: Started) -> None:
        before = self.record.containers[name]
        now = self._services.now()
        self._failures.pop(name, None)
        state = ContainerState(
            phase="running",
            attempt=attempt,
            reason="",
            backoff=before.backoff,
            run_id=started.run.id,
            image=started.image.image.reference,
            image_id=started.image.image.image_id,
            started_at=started.run.started_at or now,
            previous=before.ended or before.previous,
        )
        self._change_container(name, state)
        self._services.events.pod(self.pod, "Normal", "Started", f"Container started: {name}", container=name)
        self._refresh_at = self._refresh_at or now + self._refresh_pause()
        self.phase = phase_of(self._shape, self.record.containers)
        self._publish(now)
        early = self._early.pop(name, started.run)
        if early.over:
            self._end(name, end_of(early, state.started_at, now))

    def _failed_to_start(self, name: str, container: Mapping[str, Any], error: CinderError) -> None:
        timing, now = self._services.timing, self._services.now()
        why = why_not(error, container)
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        first, most = (
            (timing.pull_backoff_first, timing.pull_backoff_most)
            if why.pull
            else (timing.setup_retry_first, timing.setup_retry_most)
        )
        pause = min(first * 2 ** min(failures - 1, 16), most)
        if self._volumes_made is not None and self._volumes_made.done() and self._volumes_made.exception() is not None:
            self._volumes_made = None
        self._early.pop(name, None)
        self._services.events.pod(self.pod, "Warning", why.event, why.event_text, container=name)
        state = replace(self.record.containers[name], reason=why.reason, message=why.message, not_before=now + pause)
        self._change_container(name, state)
        if why.pull:
            self._services.events.pod(self.pod, "Warning", "Failed", f"Error: {why.reason}", container=name)
            self._spawn(self._show_backoff(name, str(container.get("image") or ""), why.message, state))

    async def _show_backoff(self, name: str, image: str, cause: str, state: ContainerState) -> None:
        await asyncio.sleep(min(_BACKOFF_SHOWN_AFTER, self._services.timing.pull_backoff_first / 2))
        if self.record.containers[name] != state or name in self._starts:
            return
        text = f'Back-off pulling image "{image}"'
        self._services.events.pod(self.pod, "Normal", "BackOff", text, container=name)
        self._change_container(name, replace(state, reason="ImagePullBackOff", message=f"{text}: {cause}"))
        self._wake.set()

    def _take(self, run: RunState) -> None:
        """A change the runtime tells of."""
        parts = split_run_id(run.id)
        if parts is None or parts[1] not in self.record.containers:
            return
        name = parts[1]
        if name in self._starts:
            self._early[name] = run
            return
        state = self.record.containers[name]
        if run.over and state.phase == "running" and state.run_id == run.id:
            self._end(name, end_of(run, state.started_at, self._services.now()))

    def _end(self, name: str, how: Ended) -> None:
        label = f"{name} pod={self.pod.name}_{self.pod.namespace}({self.pod.uid})"
        state = ended(self.record.containers[name], how, self._services.timing, pod=label)
        shape = next(one for one in self._shape if one.name == name)
        if not restarts(self._shape, shape, how):
            state = replace(state, reason="", message="")  # over for good: nothing to back off from
        self._change_container(name, state)
        if how.lost:
            text = f"Container {name} was lost: {how.message or how.reason}"
            self._services.events.pod(self.pod, "Warning", "ContainerLost", text, container=name)
        if state.reason and not (self.pod.deleting or self._gone):
            text = f"Back-off restarting failed container {label.replace('pod=', 'in pod ')}"
            self._services.events.pod(self.pod, "Warning", "BackOff", text, container=name)
        if how.run_id:
            self._spawn(self._keep_outcome(how.run_id))
        self._wake.set()

    async def _keep_outcome(self, run: str) -> None:
        """The outcome is ours from the moment it is on disk; only then may the runtime forget it."""
        if not (self.pod.deleting or self._gone):  # what is being deleted is never run again in any case
            await self._services.records.flush(self.record)
        with contextlib.suppress(RuntimeGoneError):  # it forgets when it is asked again, after the next list
            await self._services.runtime.forget(run)

    # -- stopping

    def _abandon_starts(self) -> None:
        for name, task in self._starts.items():
            if name not in self._committed:
                task.cancel()

    def _begin_stop(self, name: str) -> None:
        state = self.record.containers[name]
        if self._stops.get(state.run_id) in (True, self._gone):
            return
        if state.run_id not in self._stops and not self._gone:
            self._services.events.pod(self.pod, "Normal", "Killing", f"Stopping container {name}", container=name)
        self._stops[state.run_id] = self._gone
        grace = _FORCED_GRACE if self._gone else self.pod.grace
        self._spawn(self._stop(state.run_id, grace))

    async def _stop(self, run: str, grace: float) -> None:
        while True:
            try:
                await self._services.runtime.stop(run, grace)
            except RuntimeGoneError:
                await self._services.runtime.ready.wait()  # a list came with it: if the run is lost we know by now
                if run not in self._services.runtime.runs:
                    return
            else:
                return

    def _check_deadline(self, now: float) -> float | None:
        """activeDeadlineSeconds; when to look again."""
        seconds = self.pod.spec.get("activeDeadlineSeconds")
        if seconds is None or self.record.final is not None or self.phase in _FINAL:
            return None
        deadline = self.record.started + float(seconds)
        if now < deadline:
            return deadline
        message = "Pod was active on the node longer than the specified deadline"
        self._services.events.pod(self.pod, "Normal", "DeadlineExceeded", message)
        self._change(final=Final("Failed", "DeadlineExceeded", message))
        return None

    # -- the end

    def _leave(self) -> None:
        """Nothing runs and nothing will: let the pod go when it is deleted."""
        self._over(self.pod.uid)
        if self._gone:
            self._finished = True
        elif self.pod.deleting and not self._releasing:
            self._releasing = True
            self._spawn(self._release())

    async def _release(self) -> None:
        """The containers are gone, so the API may drop the pod (the second half of a graceful deletion)."""
        pause = self._services.timing.api_retry_first
        await self._services.statuses.settled(self.pod.uid)
        while not self._gone:
            try:
                await self._services.kube.delete(self.pod.path, grace=0, preconditions_uid=self.pod.uid)
            except (NotFoundError, ConflictError):
                self.removed()
            except TransientError as error:
                await asyncio.sleep(max(pause, error.retry_after))
                pause = min(pause * 2, self._services.timing.api_retry_most)
            except KubeError as error:
                self._services.log(f"pod {self.pod} cannot be deleted: {error}")
                await asyncio.sleep(self._services.timing.api_retry_most)
            else:
                return  # the watch tells when it is gone; finalizers may hold it

    async def _clean_up(self) -> None:
        services, uid = self._services, self.pod.uid
        services.statuses.forget(uid)
        services.records.forget(uid)
        for state in self.record.containers.values():
            if state.run_id in services.runtime.runs:
                with contextlib.suppress(CinderError):
                    await services.runtime.forget(state.run_id)
        try:
            await services.records.remove(uid)
        except CinderError as error:
            services.log(f"the directory of pod {self.pod} cannot be removed: {error}")

    # -- saying so

    def _publish(self, now: float) -> float | None:
        """Report what is new. Returns when to look again, if a report is held back for a moment."""
        if self._gone:
            return None
        return self._reporter.publish(self.pod, self.record, self.phase, self._volumes_ready(), now)

    def _volumes_ready(self) -> bool:
        made = self._volumes_made
        return self._begun() or (made is not None and made.done() and made.exception() is None)

    # -- volumes that follow the API

    def _refresh(self, now: float) -> float | None:
        if self.phase != "Running" or not self._volumes.live:
            return None
        if not self._refresh_at:
            self._refresh_at = now + self._refresh_pause()
        elif now >= self._refresh_at:
            self._refresh_at = now + self._refresh_pause()
            self._spawn(self._refresh_volumes())
        return self._refresh_at

    def _refresh_pause(self) -> float:
        return self._services.timing.refresh * random.uniform(1.0, 1.5)  # noqa: S311 - spreads load, keeps no secret

    async def _refresh_volumes(self) -> None:
        try:
            await self._volumes.refresh()
        except CinderError as error:
            self._services.log(f"volumes of pod {self.pod} cannot be refreshed: {error}")

    # -- small change

    def _change(self, **fields: Any) -> None:
        self.record = replace(self.record, **fields)
        self._services.records.save(self.record)

    def _change_container(self, name: str, state: ContainerState) -> None:
        self.record = self.record.with_container(name, state)
        self._services.records.save(self.record)

    def _spawn(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._services.log(f"pod {self.pod}: {error!r}")
