"""What running and finished pods rely on when the node's own processes are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Cluster, container_of, deployment, eventually, mounted, pod

NODE = "e2e-wasi"


@pytest.fixture(autouse=True)
def mended(cluster: Cluster) -> Iterator[None]:
    """Whatever a test killed, `apply` puts right, and a plan finds nothing more."""
    yield
    cluster.apply()
    assert cluster.changes() == {}


def _kill(cluster: Cluster, component: str) -> int:
    """SIGKILL a component; returns its pid once the supervisor runs another one."""
    pid = cluster.pids()[component]
    os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: (row := cluster.status()[component])["state"] == "ready" and row["pid"] != pid,
        f"{component} to be started again",
    )
    return pid


def _in(path: Path, **spec: Any) -> dict[str, Any]:
    return {**mounted({"hostPath": {"path": str(path), "type": "Directory"}}), **spec}


def _ready(cluster: Cluster, name: str) -> dict[str, Any]:
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=30s")
    return container_of(cluster.pod(name))


def test_a_killed_agent_keeps_what_runs_and_never_runs_again_what_is_over(
    cluster: Cluster, tool: str, tmp_path: Path
) -> None:
    cluster.make(
        pod("stays", tool, "a0stays", "s6000", **_in(tmp_path)),
        pod("over", tool, "a0over", "x0", **_in(tmp_path)),
        pod("over-badly", tool, "a0over-badly", "x5", **_in(tmp_path)),
    )
    before = _ready(cluster, "stays")
    cluster.wait_for_phase("over", "Succeeded")
    cluster.wait_for_phase("over-badly", "Failed")
    for _ in range(2):
        _kill(cluster, NODE)
        cluster.wait_ready(NODE)
        # The agent has seen its pods once it has served one that came after.
        cluster.make(pod("after", tool, "oafter"))
        cluster.wait_for_phase("after", "Succeeded")
        cluster.kubectl("delete", "pod", "after")
    now = container_of(cluster.pod("stays"))
    assert (now["containerID"], now["restartCount"]) == (before["containerID"], 0)
    assert now["state"] == before["state"]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "stays": "run\n",
        "over": "run\n",
        "over-badly": "run\n",
    }
    assert container_of(cluster.pod("over-badly"))["state"]["terminated"]["exitCode"] == 5
    cluster.kubectl("delete", "pod", "stays", "over", "over-badly")


def test_what_ends_while_the_agent_is_dead_is_reported_by_the_next_one(
    cluster: Cluster, tool: str, tmp_path: Path
) -> None:
    """The agent is stopped, not killed at once, so that the supervisor starts no other meanwhile."""
    cluster.make(pod("ends-alone", tool, "obegun", "s5", "a0done", "x6", **_in(tmp_path)))
    _ready(cluster, "ends-alone")
    pid = cluster.pids()[NODE]
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually((tmp_path / "done").exists, "the module to go on without the agent")
    finally:
        _kill(cluster, NODE)
    seen = cluster.wait_for_phase("ends-alone", "Failed")
    assert container_of(seen)["state"]["terminated"]["exitCode"] == 6
    assert (tmp_path / "done").read_text() == "run\n"
    assert cluster.kubectl("logs", "ends-alone") == "begun\n"
    cluster.kubectl("delete", "pod", "ends-alone")


def test_a_pod_deleted_while_the_agent_is_dead_goes_with_the_next_one(cluster: Cluster, tool: str) -> None:
    cluster.make(pod("unwanted", tool, "s6000"))
    _ready(cluster, "unwanted")
    os.kill(cluster.pids()[NODE], signal.SIGKILL)
    cluster.kubectl("delete", "pod", "unwanted", "--timeout=30s")


def test_a_killed_runtime_restarts_pods_by_policy_and_finished_ones_never(
    cluster: Cluster, tool: str, tmp_path: Path
) -> None:
    cluster.make(
        deployment("again", tool, "a0again", "s6000", **_in(tmp_path)),
        pod("lost", tool, "a0lost", "s6000", **_in(tmp_path)),
        pod("finished", tool, "a0finished", **_in(tmp_path)),
    )
    cluster.kubectl("rollout", "status", "deployment/again", "--timeout=60s")
    _ready(cluster, "lost")
    cluster.wait_for_phase("finished", "Succeeded")
    _kill(cluster, f"{NODE}-runtime")
    eventually(lambda: (tmp_path / "again").read_text() == "run\nrun\n", "the Deployment's pod to run again")
    cluster.kubectl("rollout", "status", "deployment/again", "--timeout=60s")
    again = cluster.get("pods", "-l", "app=again")["items"]
    assert [container_of(one)["restartCount"] for one in again] == [1]
    # Under `Never` nothing runs twice, even when nobody knows how far it got.
    seen = cluster.wait_for_phase("lost", "Failed")
    terminated = container_of(seen)["state"]["terminated"]
    assert terminated["exitCode"] != 0
    assert terminated["reason"]
    assert (tmp_path / "lost").read_text() == "run\n"
    assert (tmp_path / "finished").read_text() == "run\n"
    assert cluster.pod("finished")["status"]["phase"] == "Succeeded"
    cluster.make(pod("later", tool, "olater"))
    cluster.wait_for_phase("later", "Succeeded")
    cluster.delete("deployment/again", "pod/lost", "pod/finished", "pod/later")


def test_agent_and_runtime_killed_together_come_back(cluster: Cluster, tool: str) -> None:
    pids = cluster.pids()
    for component in (NODE, f"{NODE}-runtime"):
        os.kill(pids[component], signal.SIGKILL)
    cluster.make(pod("survivor", tool, "ohere"))
    cluster.wait_for_phase("survivor", "Succeeded", timeout=60)
    assert cluster.kubectl("logs", "survivor") == "here\n"
    cluster.delete("pod", "survivor")


def test_a_node_deleted_by_hand_comes_back_by_itself(cluster: Cluster) -> None:
    uid = cluster.get("node", NODE)["metadata"]["uid"]
    cluster.kubectl("delete", "node", NODE)
    eventually(
        lambda: any(
            node["metadata"]["name"] == NODE and node["metadata"]["uid"] != uid
            for node in cluster.get("nodes")["items"]
        ),
        "the node to be registered again",
        timeout=30,
    )
    cluster.wait_ready(NODE)
    labels = cluster.get("node", NODE)["metadata"]["labels"]
    assert labels["kubernetes.io/arch"] == "wasm32-wasi"


def test_a_killed_control_plane_component_is_back_and_pods_never_noticed(cluster: Cluster, tool: str) -> None:
    cluster.make(pod("calm", tool, "s6000"))
    before = _ready(cluster, "calm")
    for component in ("kube-apiserver", "etcd"):
        _kill(cluster, component)
    eventually(lambda: "ok" in cluster.kubectl("get", "--raw", "/readyz", code=None), "the API server to serve")
    cluster.wait_ready(NODE)
    cluster.make(pod("new", tool, "onew"))
    cluster.wait_for_phase("new", "Succeeded", timeout=60)
    now = container_of(cluster.pod("calm"))
    assert (now["containerID"], now["restartCount"]) == (before["containerID"], 0)
    cluster.delete("pod", "calm", "new")


def test_a_killed_supervisor_leaves_everything_running_and_apply_takes_it_over(cluster: Cluster) -> None:
    pids = cluster.pids()
    supervisors = [
        pid
        for pid, command in cluster.world.processes().items()
        if "cinderctl.cli.supervise" in command and command.endswith(str(cluster.state))
    ]
    assert len(supervisors) == 1
    os.kill(supervisors[0], signal.SIGKILL)
    assert "ok" in cluster.kubectl("get", "--raw", "/readyz")
    cluster.apply()
    assert cluster.pids() == {**pids, **cluster.pids()}
    assert {name: pid for name, pid in cluster.pids().items() if name in pids} == pids
