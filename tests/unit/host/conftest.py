"""A directory with a supervisor of its own process, tiny back-off times, and a few tasks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from cinderctl.host.components import Component, ComponentStatus
from cinderctl.host.control import ensure_supervisor, put_components, read_status, stop_supervisor
from cinderctl.host.dirs import ClusterDir
from cinderctl.host.files import ensure_dir, read_json, tail
from cinderctl.host.identity import Identity

T = TypeVar("T")

SUPERVISE = """
import asyncio, logging, sys
from pathlib import Path
from cinderctl.host.dirs import ClusterDir
from cinderctl.host.supervisor import Timing, supervise

async def write(config, root):
    (root / "written").write_text(config["word"])
    logging.getLogger("task").info("wrote %s", config["word"])
    try:
        await asyncio.Event().wait()
    finally:
        (root / "written").unlink()

async def fail(config, root):
    raise RuntimeError("no luck")

timing = Timing(backoff_first=0.02, backoff_max=0.1, probe_slow=0.05, settled=float(sys.argv[2]), housekeeping=0.05)
asyncio.run(supervise(ClusterDir(Path(sys.argv[1])), {"write": write, "fail": fail}, timing=timing))
"""


def until(condition: Callable[[], T | None], what: object = "", seconds: float = 8.0) -> T:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.005)
    return result


@dataclass
class Supervised:
    directory: ClusterDir
    settled: float = 10.0

    def start(self) -> None:
        command = [sys.executable, "-c", SUPERVISE, str(self.directory.root), str(self.settled)]
        ensure_supervisor(self.directory, command, dict(os.environ))

    def put(self, *components: Component) -> None:
        put_components(self.directory, components)

    def status(self, name: str) -> ComponentStatus:
        return read_status(self.directory).get(name, ComponentStatus(name))

    def wait(self, name: str, state: str = "ready") -> ComponentStatus:
        def reached() -> ComponentStatus | None:
            status = self.status(name)
            return status if status.state == state else None

        return until(reached, lambda: (name, state, self.status(name), tail(self.directory.log("supervisor"))))

    def pid(self, name: str) -> int:
        identity = self.wait(name).identity
        assert identity is not None
        return identity.pid

    def supervisor(self) -> Identity:
        value = read_json(self.directory.run / "supervisor.json")
        assert value is not None
        return Identity.from_json(value["identity"])


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Supervised]:
    """A directory whose supervisor is not started yet."""
    supervised = Supervised(ClusterDir(ensure_dir(tmp_path / "cluster")))
    yield supervised
    stop_supervisor(supervised.directory, stop_components=True, grace=0)


@pytest.fixture
def cluster(idle: Supervised) -> Supervised:
    idle.start()
    return idle


def sleeper(name: str, script: str = "", **options: object) -> Component:
    """A shell that runs a script, then sleeps; ends on SIGTERM."""
    environment = {"PATH": os.environ["PATH"]}
    return Component(name, argv=("sh", "-c", f"{script}\nexec sleep 60"), env=environment, **options)  # type: ignore[arg-type]
