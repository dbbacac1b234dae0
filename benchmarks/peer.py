"""The peer: kwokctl's binary runtime, with the very programs that cinderctl runs, so that only the tools differ.

It starts etcd, the API server, the controller manager, the scheduler and its own controller of simulated nodes; no
registry and no node that runs anything.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from world import Failed, World, run, seconds_of

__all__ = ["Peer"]


class Peer(World):
    """A world in which kwokctl is the tool."""

    def __init__(self, name: str, programs: Mapping[str, Path]) -> None:
        super().__init__(name)
        self._programs = programs
        home = self.root / "home"
        home.mkdir()
        self.env |= {
            "HOME": str(home),
            "KWOK_WORKDIR": str(home / ".kwok"),
            # kwokctl looks for kubectl on PATH: the same one for both.
            "PATH": f"{programs['kubectl'].parent}{os.pathsep}{self.env.get('PATH', os.defpath)}",
        }

    def __exit__(self, *_: object) -> None:
        if (self.root / "home" / ".kwok" / "clusters" / self.name).exists():
            try:
                run(self._argv("delete"), self.env, self.root)
            except (Failed, subprocess.TimeoutExpired) as error:
                sys.stderr.write(f"{error}\n")
        self.close()

    def create(self) -> float:
        """Seconds until kwokctl says that its cluster is ready."""
        flags = [
            f"--{flag}-binary={self._programs[program]}"
            for flag, program in (
                ("etcd", "etcd"),
                ("kube-apiserver", "kube-apiserver"),
                ("kube-controller-manager", "kube-controller-manager"),
                ("kube-scheduler", "kube-scheduler"),
                ("kwok-controller", "kwok"),
            )
        ]
        return seconds_of([*self._argv("create"), "--runtime=binary", "--wait=60s", *flags], self.env, self.root)

    def delete(self) -> float:
        return seconds_of(self._argv("delete"), self.env, self.root)

    def _argv(self, verb: str) -> list[str]:
        kubeconfig = f"--kubeconfig={self.env['KUBECONFIG']}"
        return [str(self._programs["kwokctl"]), f"--name={self.name}", verb, "cluster", kubeconfig]
