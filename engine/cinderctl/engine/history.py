"""What the records of a journal add up to: the runs, what they left unfinished, and what was there at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cinderctl.core.address import Address

__all__ = ["Fold", "History", "RunRecord", "StepRecord"]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """`outcome`: done, failed, interrupted, or "" when the process ended first. Times in seconds since the epoch."""

    address: Address
    phase: str
    began: float
    outcome: str = ""
    seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunRecord:
    run: str
    mode: str
    began: float
    outcome: str = ""
    seconds: float = 0.0
    steps: tuple[StepRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    """What the journal says. `unfinished`: address → the phase that did not end well; `existing`: what was there
    when the last run ended. `runs` oldest first.
    """

    unfinished: dict[Address, str] = field(default_factory=dict)
    existing: frozenset[Address] = frozenset()
    runs: tuple[RunRecord, ...] = ()


class Fold:
    """The state that the records so far add up to. The last word on an address wins, so replaying a suffix is
    harmless.
    """

    def __init__(self) -> None:
        self.existing: set[Address] = set()
        self.unfinished: dict[Address, str] = {}
        self._open: dict[int, tuple[Address, str]] = {}
        self._runs: list[RunRecord] = []
        self._steps: list[list[StepRecord]] = []
        self._where: dict[int, tuple[int, int]] = {}

    def take(self, record: dict[str, Any]) -> None:
        match record["t"]:
            case "journal":
                self.existing.update(map(Address.parse, record.get("exists", ())))
                self.unfinished.update((Address.parse(key), do) for key, do in record.get("unfinished", {}).items())
            case "run":
                self.unfinished.update(self._open.values())  # the run before ended without a word on these
                self._open.clear()
                self.existing.update(map(Address.parse, record.get("add", ())))
                self.existing.difference_update(map(Address.parse, record.get("drop", ())))
                for text in record.get("settled", ()):
                    self.unfinished.pop(Address.parse(text), None)
                self._runs.append(RunRecord(record["run"], record["mode"], record["at"]))
                self._steps.append([])
            case "begin":
                self._begin(record)
            case "end":
                self._end(record)
            case "done" if self._runs and self._runs[-1].run == record["run"]:
                last = self._runs[-1]
                self._runs[-1] = RunRecord(last.run, last.mode, last.began, record["ok"], record["s"])
            case _:
                pass  # a kind of record that a later version adds within this format

    def _begin(self, record: dict[str, Any]) -> None:
        address = Address.parse(record["a"])
        self._open[record["n"]] = (address, record["do"])
        if self._steps:
            self._where[record["n"]] = (len(self._steps) - 1, len(self._steps[-1]))
            self._steps[-1].append(StepRecord(address, record["do"], record["at"]))

    def _end(self, record: dict[str, Any]) -> None:
        if record["of"] not in self._open:
            return  # its begin went with a compaction
        address, do = self._open.pop(record["of"])
        if record["ok"] != "done":
            self.unfinished[address] = do
        else:
            self.unfinished.pop(address, None)
            (self.existing.discard if do == "delete" else self.existing.add)(address)
        if record["of"] in self._where:
            run, step = self._where.pop(record["of"])
            was = self._steps[run][step]
            self._steps[run][step] = StepRecord(
                was.address, was.phase, was.began, record["ok"], record["s"], record.get("why", "")
            )

    def history(self) -> History:
        runs = [
            RunRecord(run.run, run.mode, run.began, run.outcome, run.seconds, tuple(steps))
            for run, steps in zip(self._runs, self._steps, strict=True)
        ]
        return History({**self.unfinished, **dict(self._open.values())}, frozenset(self.existing), tuple(runs))
