"""The commands as scripts use them: exit codes, what goes to stdout, and JSON that parses."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import jsonschema
import pytest
import yaml

from tests.e2e.conftest import HELLO, Cluster, World, eventually, pod

HEADER = "apiVersion: cinder.crit.sh/v1alpha1\nkind: ClusterConfiguration\n"


# --- Without a cluster ------------------------------------------------------------------------------------------------


def test_validate_shows_every_problem_with_its_line(world: World) -> None:
    spec = world.root / "wrong.yaml"
    spec.write_text(
        HEADER
        + dedent(
            """\
            featureGatez: {}
            localRegistryPort: many
            registryMirrors: {"myregistry.dev": "myregistry.dev"}
            controlPlaneConfiguration: {podSubnet: 10.0.0.0/8, serviceSubnet: 10.1.0.0/16}
            extraMounts: [{hostPath: ., containerPath: /x}]
            """
        )
    )
    said = world.ctl("validate", "-f", str(spec), code=1).stderr
    for line, words in ((3, "featureGates"), (4, "localRegistryPort"), (5, "http"), (6, "overlap"), (7, "docker")):
        assert f"wrong.yaml:{line}" in said
        assert words in said
    problems = json.loads(world.ctl("validate", "-f", str(spec), "--output", "json", code=1).stderr)
    assert len(problems["diagnostics"]) >= 5
    assert all("wrong.yaml:" in problem["source"] for problem in problems["diagnostics"])


def test_a_missing_spec_and_a_wrong_option_are_told_apart(world: World) -> None:
    assert "none.yaml" in world.ctl("plan", "-f", "none.yaml", code=1).stderr
    assert "--no-such" in world.ctl("plan", "--no-such", code=64).stderr
    assert "hint" in world.ctl("no-such-command", code=64).stderr
    nothing_here = world.root / "nothing-here"
    nothing_here.mkdir(exist_ok=True)
    done = subprocess.run(
        world.command("plan"), env=world.env, cwd=nothing_here, capture_output=True, text=True, check=False
    )
    assert done.returncode in {1, 64}
    assert "cluster.yaml" in done.stderr


def test_a_spec_from_stdin_and_overlays(world: World) -> None:
    text = HEADER + "metadata: {name: piped}\n"
    assert "cluster piped" in world.ctl("validate", "-f", "-", stdin=text).stdout
    base, over = world.root / "base.yaml", world.root / "over.yaml"
    base.write_text(text)
    over.write_text(HEADER + "metadata: {name: laid-over}\n")
    answer = json.loads(world.ctl("validate", "-f", str(base), "-f", str(over), "--output", "json").stdout)
    assert answer["valid"] is True
    assert answer["cluster"] == "laid-over"


@pytest.mark.parametrize("example", ["hello-world", "krustlet-seed", "everything"])
def test_the_examples_are_valid_by_the_schema_that_is_printed(world: World, example: str) -> None:
    file = HELLO.parent / example / "cluster.yaml"
    schema = json.loads(world.ctl("schema").stdout)
    jsonschema.validate(yaml.safe_load(file.read_text()), schema)
    assert "valid" in world.ctl("validate", "-f", str(file)).stdout


def test_destroying_nothing_is_no_error(world: World) -> None:
    done = world.ctl("destroy", "--name", "no-such-cluster", "--auto-approve")
    assert "nothing to destroy" in done.stderr
    assert not world.state("no-such-cluster").exists()
    world.ctl("delete", "cluster", "--name", "no-such-cluster")


def test_apply_without_a_terminal_and_without_approval_changes_nothing(make_world: Callable[[], World]) -> None:
    world = make_world()
    spec = world.spec("unapproved.yaml", "metadata: {name: unapproved}\n")
    refused = world.ctl("apply", "-f", str(spec), code=1)
    assert "--auto-approve" in refused.stderr
    assert "control_plane.unapproved" in refused.stdout  # the plan is shown all the same
    assert world.processes() == {}
    assert not world.kubeconfig.exists()


def test_a_terminal_is_asked_and_only_yes_is_yes(make_world: Callable[[], World]) -> None:
    world = make_world()
    spec = world.spec("asked.yaml", "metadata: {name: asked}\n")
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        world.command("apply", "-f", str(spec)),
        env=world.env, cwd=world.root, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        os.write(ours, b"y\n")
        _, said = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 1
    assert "Only `yes` is accepted" in said
    assert "nothing was changed" in said
    assert world.processes() == {}


def test_commands_on_a_cluster_that_is_not_there_say_so(world: World) -> None:
    for command in (
        ("status",),
        ("start",),
        ("stop",),
        ("get", "nodes"),
        ("get", "kubeconfigs"),
        ("export", "kubeconfig"),
    ):
        said = world.ctl(*command, "--name", "no-such-cluster", code=1).stderr
        assert "no-such-cluster" in said


# --- On the shared cluster --------------------------------------------------------------------------------------------


def test_getting_things_as_cinder_did(cluster: Cluster, tool: str) -> None:
    ctl = cluster.world.ctl
    assert "e2e" in ctl("get", "clusters").stdout.splitlines()
    nodes = ctl("get", "nodes", "--name", "e2e").stdout.splitlines()
    assert [line.split()[0] for line in nodes[:-1]] == ["e2e-wascc", "e2e-wasi"]
    assert nodes[-1] == "2 node(s) found."
    assert ctl("get", "ip", "--name", "e2e").stdout == "127.0.0.1\n"
    assert ctl("get", "ip", "e2e-wasi", "--name", "e2e").stdout.startswith("10.244.255.")
    assert "e2e-wasi" in ctl("get", "ip", "nobody", "--name", "e2e", code=64).stderr
    cluster.make(pod("image", tool, "s6000"))
    assert tool in ctl("get", "images", "--name", "e2e").stdout.splitlines()
    cluster.delete("pod", "image")
    # The kubeconfig that is printed is complete in itself.
    file = cluster.world.root / "printed-kubeconfig"
    file.write_text(ctl("get", "kubeconfigs", "--name", "e2e").stdout)
    assert cluster.kubectl("--kubeconfig", str(file), "get", "ns", "default", "-o", "name") == "namespace/default\n"


def test_exporting_the_kubeconfig_to_a_file(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "exported"
    said = cluster.world.ctl("export", "kubeconfig", "--name", "e2e", "--kubeconfig", str(file)).stdout
    assert 'Set kubectl context to "kubernetes-admin@e2e"' in said
    assert cluster.kubectl("--kubeconfig", str(file), "get", "ns", "default", "-o", "name") == "namespace/default\n"
    assert file.stat().st_mode & 0o077 == 0


def test_status_shows_every_process(cluster: Cluster) -> None:
    rows = cluster.status()
    assert {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "registry", "e2e-wasi"} <= set(rows)
    assert {row["state"] for row in rows.values()} == {"ready"}
    assert all(Path(row["log"]).exists() for name, row in rows.items() if row["pid"])
    text = cluster.ctl("status").stdout
    assert text.splitlines()[0].split()[:3] == ["COMPONENT", "STATE", "PID"]
    assert "kube-scheduler" in text


def test_logs_of_a_component(cluster: Cluster) -> None:
    ctl = cluster.world.ctl
    assert ctl("logs", "kube-scheduler", "--name", "e2e").stdout
    assert len(ctl("logs", "kube-apiserver", "--name", "e2e", "--tail", "3").stdout.splitlines()) == 3
    unknown = ctl("logs", "kube-skeduler", "--name", "e2e", code=64)
    assert "kube-scheduler" in unknown.stderr
    process = cluster.world.start("logs", "kube-apiserver", "--name", "e2e", "--follow", "--tail", "1")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.terminate()
    process.communicate(timeout=10)


def test_state_list_and_graph(cluster: Cluster) -> None:
    listed = cluster.ctl("state", "list", code=None)
    assert listed.returncode == 64  # -f belongs after the subcommand
    addresses = cluster.world.ctl("state", "list", "-f", str(cluster.spec)).stdout.splitlines()
    assert {"control_plane.e2e", "wasm_node.e2e-wasi", "registry.e2ereg", "certificate.ca"} <= set(addresses)
    rows = json.loads(cluster.world.ctl("state", "list", "--name", "e2e", "--output", "json").stdout)["resources"]
    assert {row["address"] for row in rows} == set(addresses)
    assert {row["existence"] for row in rows} == {"present"}
    dot = cluster.ctl("graph").stdout
    assert dot.startswith("digraph")
    assert re.search(r'"wasm_node\.e2e-wasi" -> "control_plane\.e2e"', dot)
    mermaid = cluster.ctl("graph", "--format", "mermaid").stdout
    assert mermaid.startswith(("graph", "flowchart"))
    assert "control_plane.e2e" in mermaid


def test_secrets_are_in_no_output(make_world: Callable[[], World], cluster: Cluster) -> None:
    world = make_world()
    spec = world.spec(
        "secret.yaml",
        dedent(
            """\
            metadata: {name: secretive}
            manifests:
              - inline:
                  apiVersion: v1
                  kind: Secret
                  metadata: {name: hush}
                  stringData: {password: correct-horse-battery}
            """
        ),
    )
    out = world.root / "secret.plan"
    shown = world.ctl("plan", "-f", str(spec), "--out", str(out)).stdout
    shown += world.ctl("plan", "-f", str(spec), "--output", "json").stdout + out.read_text()
    assert "(sensitive)" in shown
    assert "correct-horse" not in shown
    assert "Y29ycmVjdC1ob3JzZS" not in shown  # the same in base64


def test_push_pull_and_inspect(cluster: Cluster, tmp_path: Path) -> None:
    ctl, port = cluster.world.ctl, cluster.world.registry_port
    module = HELLO / "module" / "hello-world.wasm"
    for form in ("cncf", "wasm-to-oci"):
        reference = f"localhost:{port}/forms/{form}:v1"
        pushed = json.loads(ctl("push", str(module), reference, "--format", form, "--output", "json").stdout)
        assert ctl("push", str(module), reference, "--format", form).stdout.splitlines()[0] == f"Pushed: {reference}"
        back = tmp_path / f"{form}.wasm"
        ctl("pull", reference, "--out", str(back))
        assert back.read_bytes() == module.read_bytes()
        assert "exists" in ctl("pull", reference, "--out", str(back), code=64).stderr
        seen = json.loads(ctl("inspect", reference, "--output", "json").stdout)
        assert seen["format"] == form
        assert pushed["digest"] in json.dumps(seen)
        assert "wasi_snapshot_preview1" in ctl("inspect", reference).stdout
    assert "no-such" in ctl("inspect", f"localhost:{port}/no-such:v1", code=1).stderr
    assert "localhost:1" in ctl("inspect", "localhost:1/x:v1", code=1).stderr
    text = tmp_path / "text.wasm"
    text.write_text("no module")
    assert "WebAssembly" in ctl("push", str(text), f"localhost:{port}/text:v1", code=1).stderr
    assert "gone.wasm" in ctl("push", "gone.wasm", f"localhost:{port}/text:v1", code=1).stderr


def test_a_plan_and_its_text_fit_a_pipe(cluster: Cluster) -> None:
    """No colour, no control characters, and the countable line last."""
    done = cluster.ctl("plan", "--destroy")
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert re.fullmatch(r"Plan: 0 to create, 0 to update, 0 to replace, \d+ to delete\.", done.stdout.splitlines()[-1])
    answer = cluster.plan("--destroy")
    assert answer["mode"] == "destroy"
    assert answer["summary"]["delete"] == len(answer["changes"]) > 10
    assert {change["action"] for change in answer["changes"]} == {"delete"}


def test_events_of_an_apply_are_json_lines_when_asked_for(cluster: Cluster) -> None:
    done = cluster.apply("--output", "json")
    assert all(isinstance(json.loads(line), dict) for line in done.stdout.splitlines())


def test_cinders_create_and_delete_are_apply_and_destroy(make_world: Callable[[], World]) -> None:
    world = make_world()
    spec = world.spec("alias.yaml", "metadata: {name: alias}\nstorageClass: {enabled: false}\n")
    created = world.ctl("create", "cluster", "--config", str(spec))
    assert 'Set kubectl context to "kubernetes-admin@alias"' in created.stderr
    assert world.ctl("get", "clusters").stdout.split() == ["alias"]
    eventually(lambda: "alias" in world.kubeconfig.read_text(), "the context to be there")
    world.ctl("delete", "cluster", "--name", "alias")
    assert world.ctl("get", "clusters").stdout == ""
    assert world.processes() == {}
