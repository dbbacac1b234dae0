"""The zygote's side of its shards: forking, choosing, and ending them."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cinderctl.wasmrun import shard as shard_process
from cinderctl.wasmrun.channel import Channel
from cinderctl.wasmrun.children import end_process, run_in_child
from cinderctl.wasmrun.confine import become_shard
from cinderctl.wasmrun.loop import Loop
from cinderctl.wasmrun.protocol import BadFrameError, RunSpec, to_json

__all__ = ["MAX_RUNS", "Shard", "Shards"]

MAX_RUNS = 125
# A further shard is begun before one is full as long as there are CPUs: guests of a shard share Python's lock.
_SPREAD = 32
# How long a shard without runs is kept for the next one, in seconds.
_LINGER = {"shared": 60.0, "isolated": 1.0}
# What the siblings of a guest that will not stop get to end by themselves, in seconds.
_SIBLING_GRACE = 1.0
# A shard never unmaps a module, and no process should live for ever: after these it ends with its last run.
_MAX_MODULES, _MAX_USES = 256, 20_000


@dataclass(slots=True, eq=False)
class Shard:
    """`runs` are ids; `loaded` the digests it has mapped; `retired` when its end is our doing."""

    pid: int
    channel: Channel
    workload_class: str
    group: str
    runs: set[str] = field(default_factory=set)
    loaded: set[str] = field(default_factory=set)
    groups: dict[str, str] = field(default_factory=dict)  # run → group
    accepting: bool = True
    retired: bool = False
    used: int = 0


class Shards:
    """`heard(shard, message)` and `ended(shard, wait status, stopping)` are called for what shards do."""

    def __init__(
        self,
        loop: Loop,
        records: Path,
        lock: int,
        *,
        heard: Callable[[Shard, dict[str, Any]], None],
        ended: Callable[[Shard, int, bool], None],
        say: Callable[[str], None],
    ) -> None:
        """`records` is where shards record outcomes, `lock` a descriptor they keep, `say` takes lines for the log."""
        self._loop, self._records, self._lock = loop, records, lock
        self._heard, self._ended, self._say = heard, ended, say
        self._all: dict[int, Shard] = {}  # by pid

    def pids(self) -> list[int]:
        return list(self._all)

    def choose(self, spec: RunSpec) -> Shard:
        """The shard for a run, forked when need be. Raises OSError."""
        able = [s for s in self._all.values() if s.accepting and s.workload_class == spec.workload_class]
        if spec.group:
            for found in able:
                if spec.group in found.groups.values() or spec.group == found.group:
                    return found
        if spec.workload_class == "isolated":
            return self._fork(spec)
        able = [s for s in able if len(s.runs) < MAX_RUNS]
        least = min(able, key=lambda s: len(s.runs), default=None)
        if least is None or (len(least.runs) >= _SPREAD and len(able) < (os.cpu_count() or 1)):
            return self._fork(spec)
        return least

    def start(self, shard: Shard, spec: RunSpec, code: int) -> None:
        """Orders a run; `code` is the descriptor of its compiled module. Raises OSError."""
        load = spec.digest not in shard.loaded
        self.order(shard, {"op": "run", "spec": to_json(spec), "load": load}, (code,) if load else ())
        shard.loaded.add(spec.digest)
        shard.runs.add(spec.id)
        shard.groups[spec.id] = spec.group
        shard.used += 1
        if len(shard.loaded) >= _MAX_MODULES or shard.used >= _MAX_USES:
            shard.accepting = False

    def order(self, shard: Shard, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        shard.channel.send(message, fds)
        self._flush(shard)

    def leave(self, shard: Shard, id: str) -> None:  # noqa: A002 (the protocol's word)
        """A run is not in it any more. An empty shard lingers for the next."""
        shard.runs.discard(id)
        shard.groups.pop(id, None)
        if not shard.runs:
            used = shard.used
            linger = _LINGER[shard.workload_class] if shard.accepting else 0.0
            self._loop.after(linger, lambda: self._let_go(shard) if shard.used == used and not shard.runs else None)

    def retire(self, shard: Shard, *, at_once: bool) -> None:
        """No more runs; killed now, or after the time its other runs get to end by themselves."""
        shard.accepting = False
        shard.retired = True
        if at_once:
            end_process(shard.pid)
        else:
            self._loop.after(
                _SIBLING_GRACE, lambda: end_process(shard.pid) if self._all.get(shard.pid) is shard else None
            )

    def end(self) -> None:
        """Kills them all and waits."""
        for shard in list(self._all.values()):
            shard.retired = True
            end_process(shard.pid)
            self._bury(shard, stopping=True)

    def _fork(self, spec: RunSpec) -> Shard:
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            run_in_child(lambda: self._be_shard(parent, theirs))
        theirs.close()
        group = spec.group if spec.workload_class == "isolated" else ""
        shard = Shard(pid, Channel(ours), spec.workload_class, group)
        self._all[pid] = shard
        self._loop.watch(ours.fileno(), lambda events: self._hear(shard, events))
        return shard

    def _be_shard(self, parent: int, theirs: socket.socket) -> None:
        become_shard(parent, (theirs.fileno(), self._lock))
        shard_process.serve(Channel(theirs), self._records)

    def _hear(self, shard: Shard, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush(shard)
        if not events & ~select.EPOLLOUT:
            return
        try:
            messages = shard.channel.receive()
            for message in messages or ():
                self._heard(shard, message)
        except (BadFrameError, KeyError, TypeError, ValueError) as error:
            # Its guests run foreign code: whatever it says, the zygote lives on without it.
            self._say(f"shard {shard.pid} does not keep to the protocol, killing it: {error!r}")
            end_process(shard.pid)
            messages = None
        if messages is None:
            self._bury(shard, stopping=False)

    def _flush(self, shard: Shard) -> None:
        with contextlib.suppress(OSError):  # its end is about to be heard
            self._loop.want_write(shard.channel.fileno(), not shard.channel.flush())

    def _let_go(self, shard: Shard) -> None:
        if self._all.get(shard.pid) is shard:
            shard.accepting = False
            shard.retired = True
            self._bury(shard, stopping=False)

    def _bury(self, shard: Shard, *, stopping: bool) -> None:
        """Closes the channel, which ends a shard that has not ended, and collects the process."""
        del self._all[shard.pid]
        self._loop.unwatch(shard.channel.fileno())
        shard.channel.close()
        self._ended(shard, os.waitpid(shard.pid, 0)[1], stopping)
