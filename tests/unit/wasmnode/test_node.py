"""The Node as users of Krustlet know it, and that it stays as it should be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cinderctl.wasmnode.addresses import Addresses
from cinderctl.wasmnode.config import ConfigError, NodeConfig, parse_config
from cinderctl.wasmnode.host_facts import HostFacts, Pressure, host_facts, pressure
from cinderctl.wasmnode.node_object import allowed_label, new_node, node_status, same_status
from tests.unit.wasmnode.conftest import Lab, Run

NODE = "/api/v1/nodes/node-wasi"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-wasi"
FACTS = HostFacts(4, 8 << 30, 100 << 30, "m", "s", "b", "6.1", "Debian")


def test_the_node_has_the_labels_taints_and_addresses_of_krustlets_nodes(config: NodeConfig) -> None:
    node = new_node(replace(config, labels={"tier": "edge", "kubernetes.io/arch": "lies", "x.kubernetes.io/y": "no"}))
    assert node["metadata"]["labels"] == {
        "tier": "edge",
        "kubernetes.io/arch": "wasm32-wasi",
        "beta.kubernetes.io/arch": "wasm32-wasi",
        "kubernetes.io/os": "linux",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/hostname": "node-wasi",
        "type": "krustlet",
    }
    assert [(t["value"], t["effect"]) for t in node["spec"]["taints"]] == [
        ("wasm32-wasi", "NoExecute"),
        ("wasm32-wasi", "NoSchedule"),
    ]
    status = node_status(config, FACTS, Pressure(), images=[], runtime={"wasmtime": "50.0.1"}, before={}, now=0)
    assert status["capacity"] == {"cpu": "4", "memory": "8388608Ki", "ephemeral-storage": "104857600Ki", "pods": "110"}
    assert status["addresses"][0] == {"type": "InternalIP", "address": "10.244.255.1"}
    assert status["daemonEndpoints"]["kubeletEndpoint"]["Port"] == 3000
    assert status["nodeInfo"]["containerRuntimeVersion"] == "wasmtime://50.0.1"
    assert status["nodeInfo"]["kubeletVersion"] == "v0.1.0"


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("tier", True),
        ("example.com/tier", True),
        ("type", False),
        ("kubernetes.io/arch", False),
        ("kubernetes.io/role", False),
        ("node-role.kubernetes.io/worker", False),
        ("node.kubernetes.io/kind", True),
        ("sub.node.kubernetes.io/kind", True),
        ("topology.kubernetes.io/zone", True),
    ],
)
def test_labels_a_node_may_not_give_itself_are_left_out(key: str, allowed: bool) -> None:
    assert allowed_label(key) is allowed


def test_conditions_keep_the_time_of_their_last_change(config: NodeConfig) -> None:
    one = node_status(config, FACTS, Pressure(), images=[], runtime={}, before={}, now=0)
    two = node_status(config, FACTS, Pressure(), images=[], runtime={}, before=one, now=60)
    three = node_status(config, FACTS, Pressure(disk=True), images=[], runtime=None, before=two, now=120)
    assert same_status(one, two)
    assert not same_status(two, three)
    changed = {c["type"]: c for c in three["conditions"]}
    assert changed["DiskPressure"]["status"] == "True"
    assert changed["Ready"]["status"] == "False"
    assert changed["Ready"]["lastTransitionTime"] == "1970-01-01T00:02:00Z"
    assert changed["MemoryPressure"]["lastTransitionTime"] == "1970-01-01T00:00:00Z"


def test_the_machine_is_described_truly(tmp_path: Path) -> None:
    facts = host_facts(tmp_path, "n")
    assert facts.cpus >= 1
    assert facts.memory > 1 << 20
    assert facts.storage > 1 << 20
    assert isinstance(pressure(tmp_path), Pressure)


def test_the_node_registers_renews_its_lease_and_comes_back_when_deleted(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent():
            await lab.api.until(lambda: lab.api.objects[NODE]["status"]["conditions"])
            lease = await lab.api.until(lambda: lab.api.objects[LEASE])
            assert lease["spec"]["leaseDurationSeconds"] == 40
            assert lease["metadata"]["ownerReferences"][0]["uid"] == lab.api.objects[NODE]["metadata"]["uid"]
            first = lease["spec"]["renewTime"]
            await lab.api.until(lambda: lab.api.objects[LEASE]["spec"]["renewTime"] != first)
            lab.api.remove(NODE)
            lab.api.remove(LEASE)
            await lab.api.until(lambda: lab.api.objects[NODE]["status"]["conditions"])
            await lab.api.until(lambda: lab.api.objects[LEASE])

    run_lab(body)


def test_an_existing_node_is_brought_up_to_date_and_kept_so(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        lab.api.add("/api/v1/nodes", {"metadata": {"name": "node-wasi", "labels": {"mine": "1", "type": "other"}}})
        async with lab.agent():
            await lab.api.until(lambda: lab.api.objects[NODE]["metadata"]["labels"]["type"] == "krustlet")
            assert lab.api.objects[NODE]["metadata"]["labels"]["mine"] == "1"
            await lab.api.until(lambda: lab.api.objects[NODE]["status"]["capacity"])
            assert any("taints" in line for line in lab.logged)
            lab.api.change(NODE, lambda node: node["status"]["capacity"].update(cpu="999"))
            await lab.api.until(lambda: lab.api.objects[NODE]["status"]["capacity"]["cpu"] != "999")

    run_lab(body)


def test_an_idle_node_reports_only_what_changed(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent():
            first = await lab.api.until(lambda: lab.api.objects[LEASE]["spec"]["renewTime"])
            await lab.api.until(lambda: lab.api.objects[NODE]["status"]["conditions"])
            count = len([r for r in lab.api.requests if r[1] == f"{NODE}/status"])
            for _ in range(3):
                await lab.api.until(lambda before=first: lab.api.objects[LEASE]["spec"]["renewTime"] != before)
                first = lab.api.objects[LEASE]["spec"]["renewTime"]
            assert len([r for r in lab.api.requests if r[1] == f"{NODE}/status"]) <= count + 1

    run_lab(body)


def test_every_wrong_field_of_the_configuration_is_named() -> None:
    good = {
        "nodeName": "n",
        "arch": "wasm32-wasi",
        "server": "https://x",
        "directory": "/x",
        "nodeIP": "10.0.0.1",
        "listenAddress": "127.0.0.1",
        "port": 3000,
    }
    assert parse_config(good).max_pods == 110
    with pytest.raises(ConfigError) as caught:
        parse_config({**good, "arch": "x86", "port": 99999, "nodeIP": "here", "maxPods": 0})
    assert {d.path[0] for d in caught.value.diagnostics} == {"arch", "port", "nodeIP", "maxPods"}
    with pytest.raises(ConfigError) as caught:
        parse_config({"port": "3000", "restartBarePods": "yes"})
    assert {"nodeName", "port", "restartBarePods"} <= {d.path[0] for d in caught.value.diagnostics}


def test_addresses_are_kept_and_not_given_twice_or_again_at_once() -> None:
    pool = Addresses("10.244.1.0/29", "10.244.255.1", {"old": "10.244.1.2"})
    assert pool.of("old") == "10.244.1.2"
    assert [pool.of(u) for u in "abcde"] == ["10.244.1.1", "10.244.1.3", "10.244.1.4", "10.244.1.5", "10.244.1.6"]
    assert pool.of("f") == "10.244.255.1"  # none left: the node's own
    pool.release("b")
    assert pool.of("g") == "10.244.1.3"
    assert pool.of("h", host_network=True) == "10.244.255.1"
    pool.release("old")  # finished, though it shows its address still
    assert pool.of("i") == "10.244.1.2"
    assert Addresses("", "192.168.1.5", {}).of("x") == "192.168.1.5"
