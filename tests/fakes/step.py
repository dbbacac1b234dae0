"""A step as the engine gives it to a kind: what the kind said is kept, waiting has a short deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import DeadlineError, InterruptedRunError, TransientError
from cinderctl.core.record import Record
from cinderctl.core.values import redacted
from cinderctl.engine.kinds import inputs_as_dict

__all__ = ["FakeStep"]

T = TypeVar("T")


@dataclass
class FakeStep:
    """`cancel_when` is asked at every look: once it is true, the user has stopped the run."""

    record: Record
    deadline: float = 5.0
    cancel_when: Callable[[], bool] = lambda: False
    messages: list[str] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, address: Address, want: Any, cluster: str = "test", **settings: Any) -> FakeStep:
        """For a create or an update: the record holds the inputs as they are stored."""
        return cls(Record(cluster, address, redacted(inputs_as_dict(want))), **settings)

    def wait_until(
        self, condition: Callable[[], T | None], what: str, *, timeout: float | None = None, interval: float = 0.05
    ) -> T:
        end = time.monotonic() + (self.deadline if timeout is None else timeout)
        while True:
            self.check_cancelled()
            try:
                if value := condition():
                    return value
            except TransientError:
                pass
            if time.monotonic() > end:
                raise DeadlineError(f"not in time: {what}")
            time.sleep(min(interval, 0.005))

    def progress(self, message: str, *, done: int | None = None, total: int | None = None) -> None:
        self.messages.append(message if done is None else f"{message} {done}/{total}")

    def log(self, text: str) -> None:
        self.logged.append(text)

    def check_cancelled(self) -> None:
        if self.cancel_when():
            raise InterruptedRunError("stopped")
