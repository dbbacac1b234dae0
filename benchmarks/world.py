"""A place of its own for everything a measurement makes: state, kubeconfig, processes. It ends with nothing left.

Whatever runs for a world carries the world's directory in its command line or environment; that, and nothing else, is
how leftovers are found, so a process of anybody else's is never touched.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Failed", "Process", "World", "free_port", "run", "seconds_of"]

_LIMIT = 300.0  # seconds any one command may take


class Failed(Exception):  # noqa: N818 - reads as a sentence where it is caught
    """A command that was to be measured did not succeed."""


def run(argv: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> str:
    """Standard output. Raises: Failed with what the command said."""
    done = subprocess.run(
        list(argv), env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT,
        check=False,
    )  # fmt: skip
    if done.returncode:
        said = f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        raise Failed(f"{' '.join(argv[:4])} ...: exit {done.returncode}\n{said}")
    return done.stdout


def seconds_of(argv: Sequence[str], env: Mapping[str, str], cwd: Path | None = None) -> float:
    """Wall time of a command from its start to its end. Raises: Failed."""
    begun = time.perf_counter()
    run(argv, env, cwd)
    return time.perf_counter() - begun


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    command: str


class World:
    """One user's home, as far as a command can see. Use as a context manager; leaving it destroys what is there."""

    def __init__(self, name: str) -> None:
        self.name = name
        # Short on purpose: Unix sockets below it have at most 107 characters.
        self.root = Path(tempfile.mkdtemp(prefix="cb-"))
        self.port = free_port()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CINDERCTL", "KUBE", "KWOK"))}
        kept.pop("PYTHONPATH", None)
        self.env = kept | {
            "XDG_STATE_HOME": str(self.root / "state"),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
            "KUBECONFIG": str(self.root / "kubeconfig"),
            "NO_COLOR": "1",
        }
        self.spec = self.root / "cluster.yaml"
        self.spec.write_text(
            "apiVersion: cinder.crit.sh/v1alpha1\n"
            "kind: ClusterConfiguration\n"
            f"metadata: {{name: {name}}}\n"
            "featureGates: {LocalRegistry: true, Krustlet: true}\n"
            f"localRegistryName: {self.registry}\n"
            f"localRegistryPort: {self.port}\n"
        )

    @property
    def registry(self) -> str:
        return f"{self.name}registry"

    @property
    def directory(self) -> Path:
        """The cluster's own."""
        return self.root / "state" / "cinderctl" / self.name

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        if self.directory.exists():
            try:
                self.ctl("destroy", "--auto-approve")
            except (Failed, subprocess.TimeoutExpired) as error:
                sys.stderr.write(f"{error}\n")
        self.close()

    def argv(self, command: str, *arguments: str) -> list[str]:
        """cinderctl as a user has it on PATH: the script beside this interpreter."""
        return [str(Path(sys.executable).parent / "cinderctl"), command, "-f", str(self.spec), *arguments]

    def ctl(self, command: str, *arguments: str) -> str:
        return run(self.argv(command, *arguments), self.env, self.root)

    def time(self, command: str, *arguments: str) -> float:
        return seconds_of(self.argv(command, *arguments), self.env, self.root)

    def processes(self) -> list[Process]:
        """All that run for this world, whoever started them."""
        found, mark = [], os.fsencode(self.root)
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes()
                known = mark in command or mark in (entry / "environ").read_bytes()
            except OSError:  # gone, or another user's
                continue
            if known and command:
                found.append(Process(int(entry.name), command.replace(b"\0", b" ").decode(errors="replace").strip()))
        return found

    def close(self) -> None:
        """End what still runs here, and remove the directory."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + 5
            left = self.processes()
            for process in left:
                try:
                    os.kill(process.pid, number)
                except ProcessLookupError:
                    continue
            while left and time.monotonic() < deadline:
                time.sleep(0.05)
                left = self.processes()
            if not left:
                break
        shutil.rmtree(self.root, ignore_errors=True)
