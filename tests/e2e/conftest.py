"""A real cluster on the process provider, made once for the whole session by the command line users type.

State, kubeconfig and registry data live in a directory of the session; only the cache of binaries is the user's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
HELLO = REPOSITORY / "examples" / "hello-world"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e" in str(item.path):
            item.add_marker(pytest.mark.e2e)


def eventually(look: Callable[[], T | None], what: str, timeout: float = 30.0) -> T:
    """What `look` returns once it is true. Raises: AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        if value := look():
            return value
        assert time.monotonic() < deadline, f"not in {timeout} s: {what}"
        time.sleep(0.05)


@dataclass
class World:
    """One user's machine, as far as cinderctl sees it."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path) -> World:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("CINDERCTL", "KUBE"))}
        env |= {
            "XDG_STATE_HOME": str(root / "state"),
            "KUBECONFIG": str(root / "kubeconfig"),
            "NO_COLOR": "1",
            "PYTHONWARNINGS": "default",
        }
        return cls(root, env)

    def ctl(
        self, *arguments: str, code: int | None = 0, stdin: str | None = None, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """Run cinderctl; fails the test on another exit code than `code` (None: any)."""
        done = subprocess.run(
            [sys.executable, "-m", "cinderctl.cli.app", *arguments],
            env=self.env, cwd=self.root, input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if code is not None:
            assert done.returncode == code, (
                f"cinderctl {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def state(self, cluster: str) -> Path:
        return self.root / "state" / "cinderctl" / cluster

    def processes(self) -> list[str]:
        """Command lines of every process that runs for this world."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.root) in command and "pytest" not in command:
                found.append(f"{entry.name} {command}")
        return found


@dataclass
class Cluster:
    """A cluster in a world, with its own kubectl."""

    world: World
    name: str
    spec: Path
    kubectl_path: str

    def ctl(self, command: str, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self.world.ctl(command, "-f", str(self.spec), *arguments, code=code)

    def kubectl(self, *arguments: str, stdin: str | None = None, code: int | None = 0, timeout: float = 90) -> str:
        done = subprocess.run(
            [self.kubectl_path, *arguments],
            env=self.world.env, input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        if code is not None:
            assert done.returncode == code, (
                f"kubectl {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(item) for item in objects))

    def plan(self, *arguments: str) -> Any:
        return json.loads(self.ctl("plan", "--output", "json", *arguments).stdout)

    def drift(self, code: int) -> Any:
        return json.loads(self.ctl("drift", "--output", "json", code=code).stdout)


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    # Short on purpose: Unix sockets below it have at most 107 characters.
    root = Path(tempfile.mkdtemp(prefix="ci-", dir="/tmp"))
    yield World.make(root)
    shutil.rmtree(root, ignore_errors=True)


SPEC = """\
apiVersion: cinder.crit.sh/v1alpha1
kind: ClusterConfiguration
metadata: {name: e2e}
featureGates: {LocalRegistry: true, Krustlet: true}
localRegistryPort: 5055
localRegistryName: e2eregistry
"""


@pytest.fixture(scope="session")
def cluster(world: World) -> Iterator[Cluster]:
    """The one control plane that the suite shares, with both wasm nodes and a registry."""
    spec = world.root / "cluster.yaml"
    spec.write_text(SPEC)
    kubectl = world.ctl("binaries", "path", "kubectl").stdout.strip()
    made = Cluster(world, "e2e", spec, kubectl)
    made.ctl("apply", "--auto-approve")
    world.ctl("push", str(HELLO / "module" / "hello-world.wasm"), "localhost:5055/hello-world:v1")
    yield made
    made.ctl("destroy", "--auto-approve")
    assert world.processes() == []
    assert not world.state("e2e").exists()
