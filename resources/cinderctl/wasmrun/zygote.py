"""The runtime: a small single-threaded process that forks shards, speaks to agents, and remembers outcomes.

It runs no guest code and calls no function of wasmtime's library, so a fork of it is clean. Whoever dies first: an
agent that goes leaves the runs going; a shard that goes takes its runs along, and their end is recorded here; when the
runtime goes, the kernel ends its shards, and the next runtime reports what had not ended as lost.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cinderctl.wasmrun import outcome
from cinderctl.wasmrun.capi import library_version
from cinderctl.wasmrun.channel import Channel, socket_name
from cinderctl.wasmrun.children import Compilers, end_process, fork_child
from cinderctl.wasmrun.compile_cache import CompileCache
from cinderctl.wasmrun.compiler import Refused, engine_key
from cinderctl.wasmrun.confine import become_runtime, hold_lock
from cinderctl.wasmrun.loop import Loop
from cinderctl.wasmrun.protocol import (
    REFUSALS,
    BadFrameError,
    RunSpec,
    RunState,
    check_module,
    check_spec,
    spec_from_json,
    to_json,
)
from cinderctl.wasmrun.shards import Shard, Shards

__all__ = ["Zygote"]

# What an interrupted guest gets at least before its process is taken away.
_LEAST_GRACE = 0.05
# An agent that does not read is dropped; it connects again and lists.
_MAX_QUEUED = 64 << 20
_RETRIES = 3
_SELFTEST_SECONDS = 30.0


@dataclass(slots=True, eq=False)
class _Run:
    """A run that is not over. `waiting` are the callers of `run` to be answered when it has begun."""

    spec: RunSpec
    state: RunState
    shard: Shard | None = None
    waiting: list[tuple[Channel, int]] = field(default_factory=list)
    stopping: bool = False
    overdue: bool = False
    attempts: int = 0


class Zygote:
    """Construct, then `serve()`. `directory` holds `runs/` and `lock`; `cache` the compiled modules."""

    def __init__(self, directory: Path, address: Path, cache: Path, say: Callable[[str], None]) -> None:
        """`say` takes lines for the process's own log. Raises OSError, TimeoutError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        self._lock = hold_lock(directory / "lock", 10.0)
        self._directory, self._address, self._say = directory, address, say
        self._records = directory / "runs"
        self._records.mkdir(mode=0o700, exist_ok=True)
        become_runtime()
        self._states = outcome.load_all(self._records, time.time())
        self._live: dict[str, _Run] = {}
        self._clients: dict[int, Channel] = {}
        self._loop = Loop()
        self._cache = CompileCache(cache, engine_key())
        self._cache.sweep()
        self._compilers = Compilers(self._loop, cache, self._cache.key)
        self._shards = Shards(
            self._loop, self._records, self._lock, heard=self._hear_shard, ended=self._shard_ended, say=say
        )
        self._selftest: dict[str, str] = {}
        self._classes: list[str] = []

    # -- life

    def serve(self) -> None:
        """Until SIGTERM or SIGINT. Then every shard is killed and its runs are recorded as lost."""
        waking, woken = socket.socketpair()
        waking.setblocking(False)
        woken.setblocking(False)
        signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._loop.stop())
        self._loop.watch(woken.fileno(), lambda _events: None)
        self._test()
        listener = self._listen()
        self._loop.watch(listener.fileno(), lambda _events: self._accept(listener))
        # Objects the collector leaves alone stay on pages shared with the shards.
        gc.collect()
        gc.freeze()
        self._loop.run()
        listener.close()
        self._address.unlink(missing_ok=True)
        self._compilers.end()
        self._shards.end()

    def _test(self) -> None:
        """Runs the self-test in a child and waits for it."""
        answers: list[bytes] = []

        def work(pipe: int) -> None:
            from cinderctl.wasmrun.selftest import classes_offered, run_checks  # noqa: PLC0415 (only the child needs it)

            results = run_checks(self._directory)
            os.write(pipe, json.dumps([results, classes_offered(results)]).encode())

        pid = fork_child(self._loop, work, lambda data, _status: answers.append(data))
        self._loop.after(_SELFTEST_SECONDS, lambda: None if answers else end_process(pid))
        self._loop.run(until=lambda: bool(answers))
        try:
            self._selftest, self._classes = json.loads(answers[0])
        except (ValueError, IndexError):
            self._selftest = {"process": "the self-test's process crashed or was stopped"}
        for name, result in self._selftest.items():
            if result != "ok":
                self._say(f"self-test {name}: {result}")
        self._say(f"wasmtime {library_version()} offers: {', '.join(self._classes) or 'nothing'}")

    def _listen(self) -> socket.socket:
        self._address.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._address.unlink(missing_ok=True)  # whoever made it is gone: we hold the lock
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.setblocking(False)
        before = os.umask(0o177)
        try:
            with socket_name(self._address) as name:
                listener.bind(name)
        finally:
            os.umask(before)
        listener.listen(16)
        return listener

    # -- agents

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        size = struct.calcsize("3i")
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
        if uid != os.geteuid():
            self._say(f"refused a connection by uid {uid}")
            sock.close()
            return
        channel = Channel(sock)
        self._clients[channel.fileno()] = channel
        self._loop.watch(channel.fileno(), lambda events: self._hear_client(channel, events))

    def _hear_client(self, channel: Channel, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush(channel)
        if not events & ~select.EPOLLOUT:
            return
        try:
            messages = channel.receive()
        except BadFrameError as error:
            self._say(f"dropped a client: {error}")
            messages = None
        if messages is None:
            self._drop_client(channel)
            return
        for message in messages:
            seq = message.get("seq", 0)
            try:
                self._request(channel, seq, message)
            except Refused as refusal:
                self._refuse(channel, seq, refusal)
            except OSError as error:
                self._refuse(channel, seq, Refused("Unavailable", str(error)))
            except (KeyError, TypeError, ValueError) as error:
                self._refuse(channel, seq, Refused("BadArgument", f"malformed request: {error!r}"))

    def _request(self, channel: Channel, seq: int, message: dict[str, Any]) -> None:
        match message["op"]:
            case "run":
                self._begin(channel, seq, spec_from_json(message["spec"]))
            case "stop":
                self._stop(str(message["id"]), float(message["grace"]))
                self._reply(channel, seq, {})
            case "forget":
                self._forget(str(message["id"]))
                self._reply(channel, seq, {})
            case "list":
                self._reply(channel, seq, {"states": [to_json(s) for s in self._states.values()]})
            case "prepare":
                self._prepare(channel, seq, str(message["module"]), str(message["digest"]))
            case "info":
                self._reply(channel, seq, {"info": self._info()})
            case op:
                raise Refused("BadArgument", f"unknown request {op!r}")

    def _info(self) -> dict[str, Any]:
        return {
            "wasmtime": library_version(),
            "classes": self._classes,
            "selftest": self._selftest,
            "pid": os.getpid(),
            "shards": self._shards.pids(),
            "runs": len(self._live),
        }

    def _reply(self, channel: Channel, seq: int, answer: dict[str, Any]) -> None:
        self._send(channel, {"re": seq, **answer})

    def _refuse(self, channel: Channel, seq: int, refusal: Refused) -> None:
        reason, message = refusal.args
        self._send(channel, {"re": seq, "refused": reason, "message": message or REFUSALS[reason]})

    def _send(self, channel: Channel, message: dict[str, Any]) -> None:
        if channel.fileno() not in self._clients:
            return  # its agent is gone; the next one lists
        channel.send(message)
        if channel.queued > _MAX_QUEUED:
            self._say("dropped a client that does not read")
            self._drop_client(channel)
            return
        self._flush(channel)

    def _flush(self, channel: Channel) -> None:
        try:
            self._loop.want_write(channel.fileno(), not channel.flush())
        except OSError:
            self._drop_client(channel)

    def _drop_client(self, channel: Channel) -> None:
        if self._clients.pop(channel.fileno(), None) is not None:
            self._loop.unwatch(channel.fileno())
            channel.close()

    def _change(self, state: RunState) -> None:
        """Remembers a state and tells every agent."""
        self._states[state.id] = state
        event = {"event": to_json(state)}
        for channel in list(self._clients.values()):
            self._send(channel, event)

    # -- runs

    def _begin(self, channel: Channel, seq: int, spec: RunSpec) -> None:
        known = self._live.get(spec.id)
        if known is not None and known.state.started_at is None:
            known.waiting.append((channel, seq))
            return
        if spec.id in self._states:
            self._reply(channel, seq, {"state": to_json(self._states[spec.id])})
            return
        problem = check_spec(spec)
        if problem:
            raise Refused("BadArgument", problem)
        if spec.workload_class not in self._classes:
            raise Refused(
                "ClassNotOffered", f"this node's wasmtime failed the self-test for {spec.workload_class} runs"
            )
        run = _Run(spec, RunState(spec.id, "compiling"), waiting=[(channel, seq)])
        self._live[spec.id] = run
        self._states[spec.id] = run.state
        self._dispatch(run)

    def _dispatch(self, run: _Run) -> None:
        """Brings a run to a shard, by way of the compiler when its code is not in the cache."""
        digest = run.spec.digest
        code, damage = self._cache.lookup(digest)
        if damage:
            self._say(damage)
        if code < 0:
            self._change(run.state)
            self._compilers.compile(digest, run.spec.module, lambda refused: self._compiled(run, refused))
            return
        try:
            # Known to have begun, whatever happens from here: an id is never run twice.
            outcome.record(self._records, replace(run.state, state="running"), durable=False)
            run.shard = self._shards.choose(run.spec)
            self._shards.start(run.shard, run.spec, code)
        except OSError as error:
            self._give_up(run, Refused("Unavailable", f"the run cannot be started: {error}"))

    def _compiled(self, run: _Run, refused: Refused | None) -> None:
        if self._live.get(run.spec.id) is not run:
            return  # stopped meanwhile
        if refused is None and run.attempts >= _RETRIES:
            refused = Refused("Unavailable", "compiled code cannot be stored or read back")
        run.attempts += 1
        if refused is not None:
            self._give_up(run, refused)
        else:
            self._dispatch(run)

    def _give_up(self, run: _Run, refused: Refused) -> None:
        """A refused run leaves no trace: it has not begun."""
        del self._live[run.spec.id], self._states[run.spec.id]
        with contextlib.suppress(OSError):
            outcome.forget(self._records, run.spec.id)
        for channel, seq in run.waiting:
            self._refuse(channel, seq, refused)

    def _prepare(self, channel: Channel, seq: int, module: str, digest: str) -> None:
        problem = check_module(module, digest)
        if problem:
            raise Refused("BadArgument", problem)
        if self._cache.lookup(digest)[0] >= 0:
            self._reply(channel, seq, {})
            return

        def done(refused: Refused | None) -> None:
            if refused is None:
                self._reply(channel, seq, {})
            else:
                self._refuse(channel, seq, refused)

        self._compilers.compile(digest, module, done)

    def _stop(self, id: str, grace: float) -> None:  # noqa: A002 (the protocol's word)
        run = self._live.get(id)
        if run is None:
            return
        run.stopping = True
        if run.shard is None:
            self._over(run, outcome.stopped(run.state, time.time()), durable=False)
            return
        self._shards.order(run.shard, {"op": "stop", "id": id})
        self._loop.after(max(grace, _LEAST_GRACE), lambda: self._take_away(run))

    def _take_away(self, run: _Run) -> None:
        """The last rung: what could not be interrupted goes with its process."""
        if self._live.get(run.spec.id) is not run or run.shard is None or run.overdue:
            return
        run.overdue = True
        self._say(f"run {run.spec.id} does not stop: retiring shard {run.shard.pid}")
        overdue = {id for id in run.shard.runs if self._live[id].overdue}  # noqa: A001
        self._shards.retire(run.shard, at_once=overdue == run.shard.runs)

    def _forget(self, id: str) -> None:  # noqa: A002
        if id in self._live:
            raise Refused("BadArgument", f"run {id} has not ended")
        if self._states.pop(id, None) is not None:
            outcome.forget(self._records, id)

    # -- shards

    def _hear_shard(self, shard: Shard, message: dict[str, Any]) -> None:
        match message:
            case {"started": state}:
                run = self._of(shard, state["id"])
                run.state = RunState(**state)
                self._change(run.state)
                self._answer(run)
            case {"ended": state, "durable": durable}:
                self._over(self._of(shard, state["id"]), RunState(**state), durable=durable)
            case {"full": id, "why": why}:
                self._say(f"shard {shard.pid} takes no more: {why}")
                shard.accepting = False
                self._again(shard, self._of(shard, id), why)
            case {"unloadable": id, "why": why}:
                run = self._of(shard, id)
                self._say(f"compiled code of {run.spec.digest} cannot be loaded: {why}")
                shard.loaded.discard(run.spec.digest)
                self._cache.invalidate(run.spec.digest)
                self._again(shard, run, why)
            case _:
                raise ValueError(f"unknown report {message!r:.200}")

    def _of(self, shard: Shard, id: str) -> _Run:  # noqa: A002
        """A run of this shard: a shard, which runs foreign code, speaks for its own runs only. Raises KeyError."""
        run = self._live[id]
        if run.shard is not shard:
            raise KeyError(id)
        return run

    def _again(self, shard: Shard, run: _Run, why: str) -> None:
        """It has not begun in `shard`: once more elsewhere, unless it was to be stopped or this goes on for ever."""
        self._shards.leave(shard, run.spec.id)
        run.shard = None
        run.attempts += 1
        if run.stopping:
            self._over(run, outcome.stopped(run.state, time.time()), durable=False)
        elif run.attempts >= _RETRIES:
            self._give_up(run, Refused("Unavailable", why))
        else:
            self._dispatch(run)

    def _over(self, run: _Run, state: RunState, *, durable: bool) -> None:
        """The end of a run. `durable` when its shard has recorded it."""
        if not durable:
            try:
                outcome.record(self._records, state, durable=True)
            except OSError as error:
                self._say(f"the outcome of {state.id} cannot be recorded: {error}")
        del self._live[state.id]
        if run.shard is not None:
            self._shards.leave(run.shard, state.id)
        run.state = state
        self._change(state)
        self._answer(run)

    def _answer(self, run: _Run) -> None:
        for channel, seq in run.waiting:
            self._reply(channel, seq, {"state": to_json(run.state)})
        run.waiting.clear()

    def _shard_ended(self, shard: Shard, status: int, stopping: bool) -> None:
        """`stopping`: the runtime itself is about to end."""
        now = time.time()
        if not shard.retired:
            self._say(f"shard {shard.pid} ended with wait status {status}, {len(shard.runs)} runs in it")
        for id in list(shard.runs):  # noqa: A001
            run = self._live[id]
            recorded = outcome.read(self._records, id)
            if recorded is not None and recorded.over:
                state = recorded
            elif stopping:
                state = outcome.lost(run.state, "RuntimeDied", "the wasm runtime was stopped while this ran", now)
            elif not shard.retired:
                state = outcome.crashed(run.state, status, now)
            elif run.overdue:
                state = outcome.killed(run.state, now)
            elif run.stopping:
                state = outcome.stopped(run.state, now)
            else:
                why = "another run in its shard could not be stopped, so the shard was killed"
                state = outcome.lost(run.state, "ShardRetired", why, now)
            self._over(run, state, durable=state is recorded)
