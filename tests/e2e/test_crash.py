"""Runs that are killed or interrupted anywhere: the same command again finishes the work; nothing is there twice."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Cluster, World, eventually, is_open, pod

SPEC = """\
metadata: {name: crash}
featureGates: {LocalRegistry: true, Krustlet: true}
localRegistryPort: {port}
localRegistryName: crashreg
files:
  - {path: /etc/motd, permissions: "0644", content: "hi\\n"}
manifests:
  - inline: {apiVersion: v1, kind: ConfigMap, metadata: {name: declared}, data: {a: b}}
postCritCommands: ["echo ran >> ../ran"]
"""
COMPONENTS = {
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "registry", "crash-wasi",
    "crash-wasi-runtime", "crash-wascc",
}  # fmt: skip


@pytest.fixture
def machine(make_world: Callable[[], World], kubectl_path: str) -> Iterator[Cluster]:
    world = make_world()
    yield Cluster(world, "crash", world.spec("crash.yaml", SPEC), kubectl_path)
    world.kill_everything()


def _cut_off(process: subprocess.Popen[str], after: float, number: int) -> bool:
    """Send a signal after so many seconds; whether it met the process alive."""
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    process.communicate(timeout=60)
    return process.returncode == -number


def _check_whole(cluster: Cluster) -> None:
    """Everything is there, once, and a plan finds nothing to do."""
    assert cluster.changes() == {}
    assert {name: row["state"] for name, row in cluster.status().items() if name in COMPONENTS} == dict.fromkeys(
        COMPONENTS, "ready"
    )
    running = cluster.world.processes()
    known = set(cluster.pids().values())
    supervisors = [pid for pid, command in running.items() if "cinderctl.cli.supervise" in command]
    assert len(supervisors) == 2, running  # the cluster's and the registry's
    # Children of the runtime are its own affair; whatever else runs is a component, and each component is one process.
    programs = Counter(
        command.partition(" ")[0].rpartition("/")[2]
        for pid, command in running.items()
        if pid in known or "/bin/" in command or "/cinderctl/" in command.partition(" ")[0]
    )
    for program in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "registry"):
        assert programs[program] == 1, running
    agents = [command for command in running.values() if "cinderctl.wasmnode --config" in command]
    assert len(agents) == 2, running


def _check_gone(cluster: Cluster) -> None:
    assert cluster.world.processes() == {}
    assert not cluster.state.exists()
    assert not is_open(cluster.world.registry_port)
    kubeconfig = cluster.world.kubeconfig
    assert not kubeconfig.exists() or "crash" not in kubeconfig.read_text()


# The instants are spread over what an apply of five seconds and a destroy of one do.
@pytest.mark.parametrize(
    ("apply_for", "destroy_for"),
    [(0.25, 0.3), (0.6, 0.45), (0.9, 0.6), (1.3, 0.8), (1.9, 1.0), (2.6, 0.55), (3.4, 0.7), (4.2, 0.9)],
)
def test_after_a_kill_the_same_command_finishes_the_work(
    machine: Cluster, apply_for: float, destroy_for: float
) -> None:
    world = machine.world
    _cut_off(world.start("apply", "-f", str(machine.spec), "--auto-approve"), apply_for, signal.SIGKILL)
    machine.apply()
    _check_whole(machine)
    _cut_off(world.start("destroy", "-f", str(machine.spec), "--auto-approve"), destroy_for, signal.SIGKILL)
    machine.destroy()
    _check_gone(machine)


def test_a_killed_apply_can_be_destroyed_as_it_is(machine: Cluster) -> None:
    _cut_off(machine.world.start("apply", "-f", str(machine.spec), "--auto-approve"), 1.5, signal.SIGKILL)
    machine.destroy()
    _check_gone(machine)


def test_an_interrupt_ends_with_130_and_a_word_and_the_next_run_goes_on(machine: Cluster) -> None:
    process = machine.world.start("apply", "-f", str(machine.spec), "--auto-approve")
    eventually((machine.state / "components" / "etcd.json").exists, "the run to be at work")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "interrupted" in output
    machine.apply()
    _check_whole(machine)

    process = machine.world.start("destroy", "-f", str(machine.spec), "--auto-approve")
    records = machine.state / "records"
    before = len(list(records.iterdir()))
    eventually(lambda: not records.exists() or len(list(records.iterdir())) < before, "destroy to be at work")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode in {0, 130}, output
    machine.destroy()
    _check_gone(machine)


def test_stop_and_start_and_a_power_cut_keep_the_data(machine: Cluster, tool_wasm: Path) -> None:
    world = machine.world
    machine.apply()
    world.ctl("push", str(tool_wasm), f"localhost:{world.registry_port}/tool:v1")
    image = f"crashreg:{world.registry_port}/tool:v1"
    machine.make(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}, "data": {"kept": "yes"}},
        pod("ran", image, "oonce"),
    )
    machine.wait_for_phase("ran", "Succeeded")

    machine.ctl("stop")
    left = world.processes()
    assert all("_registry" in command for command in left.values()), left
    assert "stopped" in machine.ctl("status").stdout
    machine.ctl("plan", code=4)  # a stopped API server hides what is in it
    machine.ctl("start")
    assert machine.get("configmap", "mine")["data"] == {"kept": "yes"}
    machine.wait_ready("crash-wasi")
    assert machine.pod("ran")["status"]["phase"] == "Succeeded"
    _check_whole(machine)

    before = machine.pids()
    world.kill_everything()
    assert not is_open(world.registry_port)
    machine.ctl("start")
    assert set(machine.pids()) == set(before)
    assert machine.get("configmap", "mine")["data"] == {"kept": "yes"}
    machine.wait_ready("crash-wasi")
    machine.make(pod("again", image, "ohello"))
    machine.wait_for_phase("again", "Succeeded")
    assert machine.kubectl("logs", "again") == "hello\n"
    assert machine.pod("ran")["status"]["phase"] == "Succeeded"
    machine.apply()
    _check_whole(machine)

    world.kill_everything()  # and this time `apply` finds it
    machine.apply()
    assert machine.get("configmap", "mine")["data"] == {"kept": "yes"}
    _check_whole(machine)

    world.kill_everything()  # and `destroy`
    machine.destroy()
    _check_gone(machine)


def test_commands_of_the_spec_ran_once_for_all_the_interruptions(machine: Cluster) -> None:
    """A run that is cut off after its commands does not run them again."""
    machine.apply()
    os.kill(machine.pids()["kube-scheduler"], signal.SIGKILL)
    machine.apply()
    machine.apply()
    assert (machine.state / "ran").read_text() == "ran\n"
    machine.destroy()
