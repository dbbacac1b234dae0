"""Commands of the spec (`preCritCommands`, `postCritCommands`), run on the host with the cluster's environment.

Owned: a sidecar record and the log with their output. They run again only when they change, or when what they ran
against is another one (`trigger`). A shell runs each line by itself; the first that fails stops the rest and is
named."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError
from cinderctl.engine.kinds import Existence, Observation, Scope, Step, input_field
from cinderctl.host.files import ensure_dir
from cinderctl.host.records import delete_record, list_records, read_extra, read_record, write_record
from cinderctl.plans.model import FieldChange
from cinderctl.resources.context import Context

__all__ = ["CommandInputs", "CommandKind"]

_DONE = "done"


@dataclass(frozen=True, slots=True)
class CommandInputs:
    commands: tuple[str, ...] = input_field("Shell lines, run one after another")
    trigger: Any = input_field("Another value runs them again: the control plane they ran against", default="")
    path: Any = input_field("Directory of upstream's binaries, first on PATH", default="")
    state: str = input_field("Always `done`: all lines ended with 0", default=_DONE)


class CommandKind:
    kind: ClassVar[str] = "command"
    inputs: ClassVar[type[Any]] = CommandInputs
    deadline: ClassVar[float] = 1800.0
    parallelism: ClassVar[int] = 1
    volatile_outputs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context) -> None:
        self._context = context
        self._records = context.cluster.records

    def discover(self, scope: Scope) -> Iterable[Observation]:
        for record in list_records(self._records, self.kind):
            if record.address not in scope.declared:
                yield self.observe(record.address, None, scope)

    def observe(self, address: Address, want: CommandInputs | None, scope: Scope) -> Observation:
        del want, scope
        record = read_record(self._records, address)
        if record is None:
            return Observation.absent(address)
        state = str(read_extra(self._records, address).get("state", "interrupted"))
        return Observation(address, Existence.PRESENT, {"state": state}, {}, record)

    def create(self, address: Address, want: CommandInputs, step: Step) -> Mapping[str, Any]:
        # The record comes first and says so: a run that was killed is seen as interrupted and done again.
        write_record(self._records, step.record, {"state": "interrupted"})
        log = self._context.cluster.log(f"command-{address.name}")
        ensure_dir(log.parent)
        ensure_dir(self._context.cluster.files)
        log.write_bytes(b"")
        for number, line in enumerate(want.commands, start=1):
            step.progress(f"running {line}", done=number - 1, total=len(want.commands))
            code, output = self._run(line, want, step, log)
            if code:
                write_record(self._records, step.record, {"state": f"failed at line {number}"})
                step.log(output)
                raise CinderError(
                    f"command {number} of {len(want.commands)} failed with exit code {code}: {line}",
                    detail=output[-2000:].strip() or "it printed nothing",
                    hint=f"all output is in {log}; mend the command and apply again",
                )
        write_record(self._records, step.record, {"state": _DONE})
        return {}

    def update(
        self, address: Address, want: CommandInputs, have: Observation, changes: Sequence[FieldChange], step: Step
    ) -> Mapping[str, Any]:
        del have, changes
        return self.create(address, want, step)

    def delete(self, have: Observation, step: Step) -> None:
        del step
        delete_record(self._records, have.address)

    def _run(self, line: str, want: CommandInputs, step: Step, log: Path) -> tuple[int, str]:
        environment = dict(self._context.command_environment)
        environment["KUBECONFIG"] = str(self._context.cluster.kubeconfigs / "admin.conf")
        environment["PATH"] = os.pathsep.join(filter(None, [str(want.path), environment.get("PATH", "")]))
        start = log.stat().st_size
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["/bin/sh", "-c", line],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._context.cluster.files,
                env=environment,
                start_new_session=True,
            )
            try:
                code = step.wait_until(lambda: _ended(process), f"`{line}` has ended", interval=0.02)[0]
            except BaseException:
                _kill_group(process)
                raise
        with log.open("rb") as output:
            output.seek(start)
            return code, output.read().decode(errors="replace")


def _ended(process: subprocess.Popen[bytes]) -> tuple[int] | None:
    code = process.poll()
    return None if code is None else (code,)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """The command and what it started: its own session, so nobody else."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
