"""A context on a home of the test's own, and the life of a resource as the engine would walk it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cinderctl.core.address import Address
from cinderctl.core.values import redacted
from cinderctl.engine.diff import diff_inputs
from cinderctl.engine.kinds import Existence, Observation, ResourceKind, Scope, inputs_as_dict
from cinderctl.host.dirs import Home
from cinderctl.plans.model import FieldChange
from cinderctl.resources.context import Context
from tests.fakes.step import FakeStep

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Clock:
    """A time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def context(tmp_path: Path, clock: Clock) -> Context:
    home = Home(tmp_path / "state", tmp_path / "cache")
    return Context(
        home=home,
        cluster=home.cluster("test"),
        name="test",
        python="python3",
        supervise=("false",),
        environment={"HOME": str(tmp_path)},
        command_environment={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        user_home=tmp_path,
        now=clock,
    )


@dataclass
class Life:
    """One resource of one kind: what the engine would do with it, without the engine."""

    kind: ResourceKind[Any]
    address: Address

    def observe(self, want: Any = None) -> Observation:
        return self.kind.observe(self.address, want, Scope("test"))

    def create(self, want: Any, **step: Any) -> Mapping[str, Any]:
        return self.kind.create(self.address, want, FakeStep.of(self.address, want, **step))

    def update(self, want: Any) -> Mapping[str, Any]:
        return self.kind.update(
            self.address, want, self.observe(want), self.changes(want), FakeStep.of(self.address, want)
        )

    def delete(self) -> None:
        have = self.observe()
        assert have.record is not None
        self.kind.delete(have, FakeStep(have.record))

    def changes(self, want: Any) -> Sequence[FieldChange]:
        """What a plan would show for these inputs."""
        have = self.observe(want)
        assert have.existence is Existence.PRESENT, have
        base = have.record.inputs if have.record else None
        return diff_inputs(redacted(inputs_as_dict(want)), redacted(have.attributes), base)

    def changed(self, want: Any) -> list[str]:
        """Paths of what a plan would show."""
        return [".".join(map(str, change.path)) for change in self.changes(want)]

    def exists(self) -> bool:
        return self.observe().existence is Existence.PRESENT

    def discovered(self, *declared: Address) -> list[Address]:
        return [one.address for one in self.kind.discover(Scope("test", frozenset(declared)))]


def everything_below(directory: Path) -> list[str]:
    """Files that are there, by their path from the directory."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
