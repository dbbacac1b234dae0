"""Plan, apply, drift and destroy as users meet them: what they say, what they touch, and what they leave alone."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import (
    EXAMPLES,
    HELLO,
    Cluster,
    World,
    container_of,
    eventually,
    is_open,
    pod,
)

BASE = """\
metadata: {name: plan}
featureGates: {LocalRegistry: true, Krustlet: true}
localRegistryPort: {port}
localRegistryName: planreg
"""


@pytest.fixture(scope="module")
def machine(make_world: Callable[[], World], kubectl_path: str) -> Iterator[Cluster]:
    """A cluster of this module's own, so that its spec can be changed."""
    world = make_world()
    made = Cluster(world, "plan", world.spec("plan.yaml", BASE), kubectl_path)
    made.apply()
    yield made
    made.destroy()
    assert world.processes() == {}


@pytest.fixture
def planned(machine: Cluster) -> Iterator[Cluster]:
    """The cluster as its first spec has it, before and after the test."""
    yield machine
    machine.world.spec("plan.yaml", BASE)
    machine.apply()


def respec(cluster: Cluster, more: str) -> None:
    """The first spec and what is added to it."""
    cluster.world.spec("plan.yaml", BASE + dedent(more))


def fields_of(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """`address path` → the field, over all changes of a plan or drift."""
    return {f"{change['address']} {field['path']}": field for change in answer["changes"] for field in change["fields"]}


# --- Plan and drift ---------------------------------------------------------------------------------------------------


def test_a_plan_after_apply_is_empty_and_so_is_drift(planned: Cluster) -> None:
    plan = planned.plan()
    assert plan["changes"] == []
    assert plan["format_version"]
    assert plan["summary"]["create"] == plan["summary"]["update"] == plan["summary"]["delete"] == 0
    planned.ctl("plan", "--detailed-exitcode")
    assert planned.drift(0)["changes"] == []
    before = planned.pids()
    planned.apply()
    assert planned.pids() == before


def test_drift_names_each_field_that_moved_and_apply_takes_it_back(planned: Cluster) -> None:
    planned.kubectl(
        "annotate", "storageclass", "local-path", "storageclass.kubernetes.io/is-default-class=false", "--overwrite"
    )
    data = json.dumps({"data": {"localRegistryHosting.v1": 'host: "elsewhere:1"\n'}})
    planned.kubectl("-n", "kube-public", "patch", "configmap", "local-registry-hosting", "-p", data)
    scheduler = planned.pids()["kube-scheduler"]
    os.kill(scheduler, signal.SIGKILL)
    planned.kubectl("delete", "node", "plan-wascc")

    drift = eventually(
        lambda: (
            found
            if "control_plane.plan components.kube-scheduler.unexpected_exits" in fields_of(found := planned.drift(2))
            else None
        ),
        "the dead scheduler to be noticed",
    )
    fields = fields_of(drift)
    annotation = next(name for name in fields if name.startswith("storage_class.local-path object.metadata.annotation"))
    assert (fields[annotation]["before"], fields[annotation]["after"]) == ("false", "true")
    host = fields["registry_hosting.local-registry-hosting host"]
    assert (host["before"], host["after"]) == ("elsewhere:1", f"localhost:{planned.world.registry_port}")
    assert host["cause"] == "world"
    text = planned.ctl("drift", code=2)
    assert "elsewhere:1" in text.stdout
    assert text.stdout.splitlines()[-1].startswith("Drift: ")

    planned.apply()
    assert planned.drift(0)["changes"] == []
    assert planned.pids()["kube-scheduler"] != scheduler
    planned.wait_ready("plan-wascc")
    hosting = planned.get("configmap", "local-registry-hosting", "-n", "kube-public")
    assert f"localhost:{planned.world.registry_port}" in hosting["data"]["localRegistryHosting.v1"]


def test_what_is_deleted_by_hand_is_drift_and_made_again(planned: Cluster) -> None:
    planned.kubectl("delete", "storageclass", "local-path")
    planned.kubectl("delete", "clusterrolebinding", "cinderctl:kubelet-api-admin")
    moved = {change["address"]: change["drift"] for change in planned.drift(2)["changes"]}
    assert moved == {
        "storage_class.local-path": "gone",
        "manifest.clusterrolebinding/cinderctl:kubelet-api-admin": "gone",
    }
    planned.apply()
    planned.drift(0)


def test_another_flag_restarts_that_component_and_no_other(planned: Cluster) -> None:
    before = planned.pids()
    respec(planned, 'controlPlaneConfiguration: {kubeScheduler: {extraArgs: {v: "2"}}}\n')
    plan = planned.plan()
    assert [(change["address"], change["action"]) for change in plan["changes"]] == [("control_plane.plan", "update")]
    assert set(fields_of(plan)) == {"control_plane.plan components.kube-scheduler.args.v"}
    assert fields_of(plan)["control_plane.plan components.kube-scheduler.args.v"]["cause"] == "spec"
    planned.ctl("plan", "--detailed-exitcode", code=2)
    assert planned.drift(0)["summary"]["pending"] == 1  # a change of the spec is no drift
    planned.apply()
    after = planned.pids()
    assert {name for name in before if before[name] != after[name]} == {"kube-scheduler"}
    command = planned.world.processes()[after["kube-scheduler"]]
    assert "--v=2" in command
    assert planned.changes() == {}


def test_a_flag_that_upstream_refuses_is_reported_and_can_be_taken_back(planned: Cluster) -> None:
    respec(planned, 'controlPlaneConfiguration: {kubeScheduler: {extraArgs: {no-such-flag: "1"}}}\n')
    failed = planned.apply(code=None)
    assert failed.returncode in {1, 3}
    assert "kube-scheduler" in failed.stderr
    assert "no-such-flag" in failed.stderr


# --- Saved plans ------------------------------------------------------------------------------------------------------


def test_a_saved_plan_is_private_can_be_shown_and_does_what_it_shows(planned: Cluster) -> None:
    respec(planned, "registryMirrors: {mirror.example: http://127.0.0.1:1}\n")
    file = planned.world.root / "saved.plan"
    file.unlink(missing_ok=True)
    shown = planned.ctl("plan", "--out", str(file)).stdout
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "registry_mirror.mirror.example" in shown
    assert "registry_mirror.mirror.example" in planned.world.ctl("show", str(file)).stdout
    planned.world.ctl("apply", str(file))
    assert planned.changes() == {}
    planned.world.ctl("apply", str(file), code=5)  # once is all it is good for


def _settings(value: str) -> str:
    return f"""
    manifests:
      - inline:
          apiVersion: v1
          kind: ConfigMap
          metadata: {{name: settings}}
          data: {{colour: {value}}}
    """


def test_a_plan_is_stale_when_the_world_or_the_spec_moved_meanwhile(planned: Cluster) -> None:
    """And what moved is named; nothing was done."""
    file = planned.world.root / "stale.plan"
    respec(planned, _settings("red"))
    planned.apply()
    respec(planned, _settings("green"))
    planned.ctl("plan", "--out", str(file))
    planned.kubectl("patch", "configmap", "settings", "-p", '{"data": {"colour": "blue"}}')
    refused = planned.world.ctl("apply", str(file), code=5)
    assert "manifest.configmap/default/settings" in refused.stderr
    assert "object.data.colour" in refused.stderr
    assert planned.get("configmap", "settings")["data"]["colour"] == "blue"
    both = fields_of(planned.plan())["manifest.configmap/default/settings object.data.colour"]
    assert (both["before"], both["after"], both["cause"]) == ("blue", "green", "both")

    planned.ctl("plan", "--out", str(file))
    respec(planned, _settings("yellow"))
    assert "spec" in planned.world.ctl("apply", str(file), code=5).stderr


def test_a_file_that_is_no_plan_is_refused(planned: Cluster) -> None:
    file = planned.world.root / "broken.plan"
    planned.ctl("plan", "--out", str(file))
    whole = file.read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2], whole.replace(b"plan", b"plam")):
        file.write_bytes(content)
        refused = planned.world.ctl("apply", str(file), code=1)
        assert "broken.plan" in refused.stderr or "plan" in refused.stderr
        assert "internal error" not in refused.stderr
        assert "fault in cinderctl" not in refused.stderr


# --- Two at once ------------------------------------------------------------------------------------------------------


def test_two_applies_at_once_one_waits_or_is_refused(planned: Cluster) -> None:
    marker = planned.world.root / "go-on"
    respec(planned, f'postCritCommands: ["touch {marker}.began; while ! test -e {marker}; do sleep 0.05; done"]\n')
    first = planned.world.start("apply", "-f", str(planned.spec), "--auto-approve")
    try:
        eventually(Path(f"{marker}.began").exists, "the first apply to be at work")
        refused = planned.apply(code=6)
        assert "another run" in refused.stderr
        assert str(first.pid) in refused.stderr
        assert planned.ctl("plan").returncode == 0  # looking is always allowed
        second = planned.world.start("apply", "-f", str(planned.spec), "--auto-approve", "--lock-timeout", "60")
    finally:
        marker.touch()
    for process in (first, second):
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output


# --- Nodes, mirrors, files, commands ----------------------------------------------------------------------------------


def test_a_mirror_is_edited_live(planned: Cluster) -> None:
    """Neither node is restarted, and the next pull goes the new way."""
    planned.world.ctl(
        "push", str(HELLO / "module" / "hello-world.wasm"), f"localhost:{planned.world.registry_port}/mirrored:v1"
    )
    before = planned.pids()
    respec(planned, f"registryMirrors: {{mirror.example: http://127.0.0.1:{planned.world.registry_port}}}\n")
    assert planned.changes() == {"registry_mirror.mirror.example": "create"}
    planned.apply()
    planned.make(pod("mirrored", "mirror.example/mirrored:v1"))
    planned.wait_for_phase("mirrored", "Failed")  # it ran, and missed its file
    assert container_of(planned.pod("mirrored"))["state"]["terminated"]["exitCode"] == 1
    respec(planned, "registryMirrors: {mirror.example: http://127.0.0.1:1}\n")
    planned.apply()
    planned.make(pod("unreachable", "mirror.example/mirrored:v2"))
    waiting = planned.wait_for_waiting("unreachable", "ErrImagePull", "ImagePullBackOff")
    assert "127.0.0.1:1" in waiting["message"] or "mirror.example" in waiting["message"]
    assert planned.pids() == before
    planned.delete("pod", "mirrored", "unreachable")


def test_nodes_are_added_labelled_and_removed_as_the_spec_says(planned: Cluster) -> None:
    def nodes(*more: str) -> None:
        lines = ["- {arch: wasm32-wasi}", "- {arch: wasm32-wascc}", *more]
        respec(planned, "wasmNodes:\n" + "\n".join(f"  {line}" for line in lines) + "\n")

    before = planned.pids()
    nodes("- {name: extra, arch: wasm32-wasi, port: 3010}")
    assert planned.changes() == {"wasm_node.extra": "create"}
    planned.apply()
    planned.wait_ready("extra")
    assert {name: planned.pids()[name] for name in before} == before

    nodes("- {name: extra, arch: wasm32-wasi, port: 3010, labels: {example.com/tier: dev}}")
    assert planned.changes() == {"wasm_node.extra": "update"}
    planned.apply()
    assert planned.get("node", "extra")["metadata"]["labels"]["example.com/tier"] == "dev"
    assert planned.changes() == {}
    planned.kubectl("label", "node", "extra", "example.com/tier=prod", "--overwrite")
    field = fields_of(planned.drift(2))['wasm_node.extra labels."example.com/tier"']
    assert (field["before"], field["after"]) == ("prod", "dev")

    nodes()
    assert planned.changes() == {"wasm_node.extra": "delete"}
    planned.apply()
    assert {node["metadata"]["name"] for node in planned.get("nodes")["items"]} == {"plan-wasi", "plan-wascc"}
    assert "extra" not in planned.pids()
    assert not (planned.state / "nodes" / "extra").exists()
    assert {name: planned.pids()[name] for name in before} == before


def test_files_are_written_below_the_cluster_and_mended(planned: Cluster) -> None:
    respec(
        planned,
        """
        files:
          - {path: /etc/motd, permissions: "0640", content: "hi\\n"}
          - {path: /etc/deep/er, permissions: "0600", encoding: base64, content: aGkK}
        """,
    )
    planned.apply()
    motd = planned.state / "files" / "etc" / "motd"
    assert motd.read_text() == "hi\n"
    assert stat.S_IMODE(motd.stat().st_mode) == 0o640
    assert (planned.state / "files" / "etc" / "deep" / "er").read_text() == "hi\n"
    motd.write_text("tampered\n")
    assert [change["address"] for change in planned.drift(2)["changes"]] == ["file./etc/motd"]
    planned.apply()
    assert motd.read_text() == "hi\n"
    respec(planned, "")
    planned.apply()
    assert not motd.exists()


def test_files_that_come_and_go_in_one_directory_do_not_get_in_each_others_way(planned: Cluster) -> None:
    def files(prefix: str) -> None:
        lines = [f'  - {{path: /etc/many/{prefix}{number}, content: "x"}}' for number in range(12)]
        respec(planned, "files:\n" + "\n".join(lines) + "\n")
        planned.apply()
        assert sorted(path.name[0] for path in (planned.state / "files/etc/many").iterdir()) == [prefix] * 12

    files("a")
    files("b")
    respec(planned, "")
    planned.apply()
    assert not (planned.state / "files" / "etc").exists()


def test_commands_run_once_and_again_only_when_they_change(planned: Cluster) -> None:
    log = planned.world.root / "ran"

    def commands(text: str) -> None:
        # The second line needs the cluster: KUBECONFIG and kubectl are there for it.
        respec(planned, f'postCritCommands: ["echo {text} >> {log}", "kubectl get nodes >> {log}"]\n')

    commands("one")
    planned.apply()
    assert log.read_text().splitlines()[0] == "one"
    assert "plan-wasi" in log.read_text()
    once = log.read_text()
    planned.apply()
    assert log.read_text() == once
    commands("two")
    assert planned.changes() == {"command.post": "update"}
    planned.apply()
    assert log.read_text().count("two") == 1

    respec(planned, 'postCritCommands: ["echo fine", "echo to stderr >&2; echo to stdout; exit 9", "echo never"]\n')
    failed = planned.apply(code=None)
    assert failed.returncode in {1, 3}
    assert "command 2 of 3" in failed.stderr
    assert "exit code 9" in failed.stderr
    assert "to stderr" in failed.stderr
    assert "to stdout" in failed.stderr
    assert "never" not in failed.stderr.replace("echo never", "")
    assert "command.post" in planned.changes()  # it is tried again
    respec(planned, 'postCritCommands: ["echo fine"]\n')
    planned.apply()
    assert planned.changes() == {}


# --- kubeconfig -------------------------------------------------------------------------------------------------------

OTHERS = """\
# my clusters, kept by hand
apiVersion: v1
kind: Config
current-context: work   # the one I use
x-vendor: {keep: me}
clusters:
- name: work
  cluster: {server: "https://work.example"}   # behind the VPN
contexts:
- name: work
  context: {cluster: work, user: me}
users:
- name: me
  user: {token: secret}
preferences: {}
"""


def test_the_users_kubeconfig_is_theirs(make_world: Callable[[], World], kubectl_path: str) -> None:
    """Comments, unknown fields and a link stay; the context in use comes back with destroy, and every byte."""
    world = make_world()
    real = world.root / "real-config"
    real.write_text(OTHERS)
    real.chmod(0o640)
    world.kubeconfig.symlink_to(real)
    small = Cluster(world, "small", world.spec("small.yaml", "metadata: {name: small}\n"), kubectl_path)
    small.apply()
    text = real.read_text()
    assert world.kubeconfig.is_symlink()
    for kept in ("# my clusters, kept by hand", "# behind the VPN", "x-vendor: {keep: me}", "https://work.example"):
        assert kept in text
    config = yaml.safe_load(text)
    assert config["current-context"] == "kubernetes-admin@small"
    assert small.kubectl("config", "current-context").strip() == "kubernetes-admin@small"
    assert small.kubectl("get", "ns", "default", "-o", "name").strip() == "namespace/default"
    small.destroy()
    assert real.read_text() == OTHERS
    assert world.kubeconfig.is_symlink()


# --- Several clusters -------------------------------------------------------------------------------------------------


def test_two_clusters_share_a_registry_and_go_one_by_one(planned: Cluster) -> None:
    """The second comes with nodes on the same ports, and leaves without a trace of itself or a scratch on the first."""
    world = planned.world
    other = Cluster(
        world, "other", world.spec("other.yaml", BASE.replace("name: plan}", "name: other}")), planned.kubectl_path
    )
    before = planned.pids()
    other.apply()
    try:
        other.context, planned.context = "kubernetes-admin@other", "kubernetes-admin@plan"
        module = HELLO / "module" / "hello-world.wasm"
        world.ctl("push", str(module), f"localhost:{world.registry_port}/shared:v1")
        for each in (planned, other):
            each.make(pod("shared", f"planreg:{world.registry_port}/shared:v1"))
            seen = each.wait_for_phase("shared", "Failed")
            assert seen["spec"]["nodeName"] == f"{each.name}-wasi"
            assert "hello from stdout!" in each.kubectl("logs", "shared")
        blocks = {json.loads((each.state / "network.json").read_text())["block"] for each in (planned, other)}
        assert len(blocks) == 2
        assert planned.changes() == other.changes() == {}
        assert sorted(world.ctl("get", "clusters").stdout.split()) == ["other", "plan"]
    finally:
        other.destroy()
        planned.context = ""
    assert not other.state.exists()
    assert planned.pids() == before
    assert is_open(world.registry_port)
    assert planned.changes() == {}
    # The context in use before the second cluster came is in use again.
    assert planned.kubectl("config", "current-context").strip() == "kubernetes-admin@plan"
    assert not any("other" in command for command in world.processes().values())


# --- Whole specs ------------------------------------------------------------------------------------------------------


def test_a_spec_with_every_part_applies_and_goes_again(make_world: Callable[[], World], kubectl_path: str) -> None:
    """The example that shows every field, on a registry port of its own."""
    world = make_world()
    folder = world.root / "everything"
    subprocess.run(["cp", "-r", str(EXAMPLES / "everything"), str(folder)], check=True)
    spec = folder / "cluster.yaml"
    text = spec.read_text().replace("5000", str(world.registry_port)).replace("16443", "0")
    text = text.replace("    bindPort: 0\n", "").replace("registry.*: {protect: true}", "")
    spec.write_text(text)
    made = Cluster(world, "everything", spec, kubectl_path)
    made.apply()
    assert made.changes() == {}
    made.context = "everything"
    assert made.get("namespace", "demo")["metadata"]["name"] == "demo"
    node = made.get("node", "everything-wasi")
    assert node["metadata"]["labels"]["example.com/tier"] == "dev"
    assert node["metadata"]["annotations"]["example.com/owner"] == "me"
    assert node["status"]["capacity"]["pods"] == "500"
    assert node["status"]["addresses"][0]["address"].startswith("10.10.")
    config = yaml.safe_load(world.kubeconfig.read_text())
    assert not config.get("current-context")
    assert next(c for c in config["contexts"] if c["name"] == "everything")["context"]["namespace"] == "demo"
    inspected = json.loads(
        world.ctl("inspect", f"localhost:{world.registry_port}/nothing:v1", "--output", "json").stdout
    )
    assert inspected["format"] == "wasm-to-oci"
    assert (made.state / "files" / "usr" / "local" / "bin" / "greet").stat().st_mode & 0o111
    made.apply()
    made.destroy()
    assert world.processes() == {}
    assert not made.state.exists()


def test_a_cinder_users_whole_file_applies_but_for_what_needs_containers(
    make_world: Callable[[], World], kubectl_path: str
) -> None:
    world = make_world()
    (world.root / "bin").mkdir()
    (world.root / "bin" / "crit").write_text("#!/bin/sh\necho crit\n")
    spec = world.spec(
        "cinder.yaml",
        dedent(
            """\
            metadata: {name: whole}
            featureGates: {LocalRegistry: true, Krustlet: true, MachineAPI: false, FixCgroupMounts: false}
            localRegistryName: cinderegg
            localRegistryPort: {port}
            registryMirrors:
              docker.io: "https://mirror.example"
              plain.example:8080: "http://plain.example:8080"
            files:
              - {path: /etc/motd, permissions: "0644", content: "hi\\n"}
              - {path: /usr/bin/crit, permissions: "0755", encoding: hostpath, content: bin/crit}
            preCritCommands: ["./usr/bin/crit version"]
            postCritCommands: ["kubectl get nodes"]
            controlPlaneConfiguration:
              podSubnet: 10.10.0.0/16
              kubeAPIServer: {extraSans: [dev.local], extraArgs: {audit-log-maxage: "30"}}
              kubeProxy:
                affinity:
                  nodeAffinity:
                    requiredDuringSchedulingIgnoredDuringExecution:
                      nodeSelectorTerms:
                        - matchExpressions:
                            - {key: kubernetes.io/arch, operator: NotIn, values: [wasm32-wasi, wasm32-wascc]}
            """
        ),
    )
    whole = Cluster(world, "whole", spec, kubectl_path)
    whole.apply()
    assert whole.changes() == {}
    applied = spec.read_text()
    refused = (
        applied
        + "extraMounts:\n  - {hostPath: ./data, containerPath: /data}\n"
        + "extraPortMappings:\n  - {containerPort: 30000, hostPort: 8000}\n"
    )
    spec.write_text(refused)
    said = whole.ctl("validate", code=1).stderr
    assert "extraMounts" in said
    assert "extraPortMappings" in said
    assert "docker" in said
    spec.write_text(applied)
    whole.destroy()
    assert world.processes() == {}
