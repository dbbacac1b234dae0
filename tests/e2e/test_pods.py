"""WebAssembly modules as pods, seen through kubectl."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import (
    Cluster,
    RawRegistry,
    container_of,
    deployment,
    eventually,
    hello,
    mounted,
    pod,
    wat,
)


@pytest.fixture(scope="module", autouse=True)
def cron_job(cluster: Cluster) -> Iterator[None]:
    """Made first: its minute passes while the other tests run."""
    template = pod("cron", f"{cluster.registry}/tool:v1", "otime")["spec"]
    job = {"spec": {"template": {"spec": template}}}
    spec = {"schedule": "* * * * *", "jobTemplate": job}
    cluster.make({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "clockwork"}, "spec": spec})
    yield
    cluster.delete("cronjob", "clockwork")


def terminated(seen: dict[str, Any]) -> dict[str, Any]:
    return dict(container_of(seen)["state"]["terminated"])


# --- What a module sees -----------------------------------------------------------------------------------------------


def test_the_hello_world_pod_prints_its_streams_its_environment_its_arguments_and_its_file(cluster: Cluster) -> None:
    hello(cluster, "hello")
    seen = cluster.wait_for_phase("hello", "Succeeded")
    lines = cluster.kubectl("logs", "hello").splitlines()
    assert "hello from stdout!" in lines
    assert "hello from stderr!" in lines
    assert {"POD_NAME=hello", "FOO=bar", "CONFIG_MAP_VAL=cool stuff"} <= set(lines)
    end = lines.index("Args are: []")
    assert lines[end + 1] == ""
    assert lines[end + 2].startswith("Embers glow")
    assert (terminated(seen)["exitCode"], terminated(seen)["reason"]) == (0, "Completed")
    assert seen["spec"]["nodeName"] == "e2e-wasi"


def test_environment_comes_from_fields_secrets_config_maps_and_earlier_variables(cluster: Cluster) -> None:
    cluster.make(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "env-secret"}, "stringData": {"KEY": "s3cret"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "env-map"}, "data": {"ONE": "1", "TWO": "2"}},
        pod(
            "env",
            f"{cluster.registry}/hello-world:v1",
            container={
                "envFrom": [{"configMapRef": {"name": "env-map"}, "prefix": "MAP_"}],
                "env": [
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "KEY"}}},
                    {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                    {"name": "BOTH", "value": "$(NODE)/$(LABEL) $$(NODE) $(NOBODY)"},
                    {
                        "name": "MAYBE",
                        "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": True}},
                    },
                ],
            },
        ),
    )
    seen = cluster.wait_for_phase("env", "Failed")  # it misses its file, but has printed its environment
    lines = set(cluster.kubectl("logs", "env").splitlines())
    assert {"MAP_ONE=1", "MAP_TWO=2", "TOKEN=s3cret", "NODE=e2e-wasi", "LABEL=env"} <= lines
    assert f"IP={seen['status']['podIP']}" in lines
    assert "BOTH=e2e-wasi/env $(NODE) $(NOBODY)" in lines
    assert not any(line.startswith("MAYBE") for line in lines)
    assert (terminated(seen)["exitCode"], terminated(seen)["reason"]) == (1, "Error")


def test_arguments_are_those_of_the_spec_and_only_a_command_gives_a_program_name(cluster: Cluster) -> None:
    image = f"{cluster.registry}/hello-world:v1"
    cluster.make(
        pod("args", image, "--flag", "two words"),
        pod("command", image, "arg", container={"command": ["program"]}),
    )
    for name, expected in (("args", '["--flag", "two words"]'), ("command", '["program", "arg"]')):
        cluster.wait_for_phase(name, "Failed")
        assert f"Args are: {expected}" in cluster.kubectl("logs", name)


def test_volumes_hold_secrets_config_maps_and_pod_facts(cluster: Cluster, tool: str) -> None:
    sources = [
        {"secret": {"name": "files-secret", "items": [{"key": "password", "path": "deep/password"}]}},
        {"configMap": {"name": "files-map"}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    merged = {"projected": {"sources": [*sources]}}
    cluster.make(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "files-secret"}, "stringData": {"password": "x y"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files-map"}, "data": {"conf": "a=b\n"}},
        pod("one-by-one", tool, "c0password", "o", "c1conf", "c2name", **_volumes(
            {"secret": {"secretName": "files-secret"}}, sources[1], sources[2])),
        pod("merged", tool, "c0deep/password", "o", "c0conf", "c0name", **_volumes(merged)),
    )  # fmt: skip
    for name in ("one-by-one", "merged"):
        cluster.wait_for_phase(name, "Succeeded")
        assert cluster.kubectl("logs", name).splitlines() == ["x y", "a=b", name]


def _volumes(*sources: dict[str, Any]) -> dict[str, Any]:
    """Spec fields for one mount each, in order: mounts 0, 1, 2 ... of the tool."""
    return {
        "volumes": [{"name": f"v{number}", **source} for number, source in enumerate(sources)],
        "container": {"volumeMounts": [{"name": f"v{n}", "mountPath": f"/v{n}"} for n in range(len(sources))]},
    }


def test_containers_of_a_pod_share_an_empty_dir_and_nobody_else_sees_it(cluster: Cluster, tool: str) -> None:
    spec = pod("shares", tool, "c0from-init", **mounted({"emptyDir": {}}))
    container = spec["spec"]["containers"][0]
    spec["spec"]["initContainers"] = [{**container, "name": "first", "args": ["a0from-init", "oprepared"]}]
    cluster.make(spec, pod("alone", tool, "c0from-init", **mounted({"emptyDir": {}})))
    seen = cluster.wait_for_phase("shares", "Succeeded")
    assert cluster.kubectl("logs", "shares", "-c", "main") == "run\n"
    assert cluster.kubectl("logs", "shares", "-c", "first") == "prepared\n"
    assert seen["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    assert terminated(cluster.wait_for_phase("alone", "Failed"))["exitCode"] == 44


def test_a_failing_init_container_keeps_the_others_from_starting(cluster: Cluster, tool: str) -> None:
    spec = pod("bad-init", tool, "onever")
    spec["spec"]["initContainers"] = [{"name": "first", "image": tool, "args": ["x7"]}]
    cluster.make(spec)
    seen = cluster.wait_for_phase("bad-init", "Failed")
    assert seen["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
    assert "started" not in container_of(seen) or container_of(seen)["started"] is False
    assert "terminated" not in container_of(seen)["state"]


def test_a_host_path_is_written_unless_it_is_mounted_read_only(cluster: Cluster, tool: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    source = {"hostPath": {"path": str(tmp_path), "type": "Directory"}}
    cluster.make(
        pod("writes", tool, "c0in", "a0out", **mounted(source)),
        pod("reads", tool, "c0in", "a0refused", **mounted(source, readOnly=True)),
        pod("escapes", tool, "c0../../etc/passwd", **mounted(source)),
    )
    cluster.wait_for_phase("writes", "Succeeded")
    assert cluster.kubectl("logs", "writes") == "from the host\n"
    assert (tmp_path / "out").read_text() == "run\n"
    assert terminated(cluster.wait_for_phase("reads", "Failed"))["exitCode"] != 0
    assert not (tmp_path / "refused").exists()
    cluster.wait_for_phase("escapes", "Failed")
    assert "root:" not in cluster.kubectl("logs", "escapes")


def test_a_pod_has_a_token_of_its_service_account_that_the_api_server_takes(cluster: Cluster, tool: str) -> None:
    """The files every in-cluster client looks for; the token is bound to this very pod."""
    cluster.make(pod("in-pod", tool, "c0token", "o", "c0ca.crt", "c0namespace", automountServiceAccountToken=True))
    seen = cluster.wait_for_phase("in-pod", "Succeeded")
    token, _, rest = cluster.kubectl("logs", "in-pod").partition("\n")
    assert rest.startswith("-----BEGIN CERTIFICATE-----")
    assert rest.splitlines()[-1] == "default"
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["kubernetes.io"]["pod"]["uid"] == seen["metadata"]["uid"]
    assert claims["sub"] == "system:serviceaccount:default:default"


def test_a_missing_config_map_holds_the_pod_back_until_it_is_there(cluster: Cluster, tool: str) -> None:
    source = {"configMap": {"name": "late"}}
    cluster.make(pod("patient", tool, "c0conf", **mounted(source)))
    cluster.wait_for_waiting("patient", "ContainerCreating")
    eventually(lambda: any("late" in e["message"] for e in cluster.events_of("patient")), "an event that names it")
    cluster.make({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"conf": "now"}})
    cluster.wait_for_phase("patient", "Succeeded")
    assert cluster.kubectl("logs", "patient") == "now\n"


# --- How a pod ends ---------------------------------------------------------------------------------------------------


def test_exit_codes_are_the_modules_and_a_trap_says_what_happened(cluster: Cluster, tool: str) -> None:
    trap = '(module (memory (export "memory") 1) (func (export "_start") (unreachable)))'
    _push(cluster, "trap:v1", wat(trap))
    cluster.make(pod("code", tool, "x42"), pod("trap", f"{cluster.registry}/trap:v1"))
    seen = cluster.wait_for_phase("code", "Failed")
    assert (terminated(seen)["exitCode"], terminated(seen)["reason"]) == (42, "Error")
    seen = cluster.wait_for_phase("trap", "Failed")
    assert terminated(seen)["exitCode"] != 0
    assert "unreachable" in terminated(seen).get("message", "") + cluster.kubectl("logs", "trap")


def _push(cluster: Cluster, name: str, module: bytes) -> None:
    path = cluster.world.root / "module.wasm"
    path.write_bytes(module)
    cluster.world.ctl("push", str(path), f"localhost:{cluster.world.registry_port}/{name}")


def test_on_failure_restarts_until_it_succeeds_and_counts(cluster: Cluster, tool: str) -> None:
    """The first run makes the file and fails, the second finds it."""
    spec = pod("second-time", tool, "c0marker", "ofound", restartPolicy="OnFailure", **mounted({"emptyDir": {}}))
    container = spec["spec"]["containers"][0]
    helper = {**container, "name": "helper", "args": ["s15", "a0marker"]}
    spec["spec"]["containers"].append(helper)
    cluster.make(spec)
    seen = cluster.wait_for_phase("second-time", "Succeeded", timeout=60)
    statuses = {one["name"]: one for one in seen["status"]["containerStatuses"]}
    assert statuses["main"]["restartCount"] >= 1
    assert statuses["main"]["state"]["terminated"]["exitCode"] == 0
    assert statuses["main"]["lastState"]["terminated"]["exitCode"] == 44
    assert statuses["helper"]["restartCount"] == 0


def test_a_failing_pod_of_a_deployment_backs_off_and_its_last_output_can_be_read(cluster: Cluster, tool: str) -> None:
    cluster.make(deployment("crashes", tool, "olast words", "x3"))
    name = eventually(lambda: _pods_of(cluster, "crashes"), "its pod")[0]["metadata"]["name"]
    waiting = cluster.wait_for_waiting(name, "CrashLoopBackOff")
    assert name in waiting["message"]
    status = container_of(cluster.pod(name))
    assert status["restartCount"] >= 1
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert cluster.pod(name)["status"]["phase"] == "Running"
    assert cluster.kubectl("logs", name, "--previous") == "last words\n"
    assert any(event["reason"] == "BackOff" for event in cluster.events_of(name))
    cluster.delete("deployment", "crashes")


def _pods_of(cluster: Cluster, app: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.get("pods", "-l", f"app={app}")["items"]
    return [one for one in found if not one["metadata"].get("deletionTimestamp")]


def test_a_bare_pod_under_always_runs_once(cluster: Cluster, tool: str) -> None:
    cluster.make(pod("once", tool, "orun", restartPolicy="Always"))
    seen = cluster.wait_for_phase("once", "Succeeded")
    assert container_of(seen)["restartCount"] == 0


def test_deleting_a_sleeping_pod_takes_no_longer_than_it_must(cluster: Cluster, tool: str) -> None:
    cluster.make(pod("sleeper", tool, "oasleep", "s6000"))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/sleeper", "--timeout=30s")
    began = time.monotonic()
    cluster.kubectl("delete", "pod", "sleeper")
    assert time.monotonic() - began < 5
    assert "NotFound" in cluster.kubectl("get", "pod", "sleeper", code=1)


def test_deleting_a_pod_that_never_looks_up_ends_with_its_grace(cluster: Cluster) -> None:
    _push(cluster, "spin:v1", wat('(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))'))
    cluster.make(pod("spinner", f"{cluster.registry}/spin:v1", terminationGracePeriodSeconds=1))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/spinner", "--timeout=30s")
    began = time.monotonic()
    cluster.kubectl("delete", "pod", "spinner")
    assert time.monotonic() - began < 6


# --- Logs -------------------------------------------------------------------------------------------------------------


def test_log_options_of_kubectl_work(cluster: Cluster) -> None:
    hello(cluster, "log-options")
    cluster.wait_for_phase("log-options", "Succeeded")
    everything = cluster.kubectl("logs", "log-options").splitlines()
    assert cluster.kubectl("logs", "log-options", "--tail=2").splitlines() == everything[-2:]
    stamped = cluster.kubectl("logs", "log-options", "--timestamps").splitlines()
    assert [line.partition(" ")[2] for line in stamped] == everything
    assert all(line[:2] == "20" and "T" in line[:11] for line in stamped)
    assert len(cluster.kubectl("logs", "log-options", "--limit-bytes=10")) == 10
    assert cluster.kubectl("logs", "log-options", "--follow").splitlines() == everything


def test_following_a_running_pod_shows_lines_as_they_come_and_ends_with_the_pod(cluster: Cluster, tool: str) -> None:
    cluster.make(pod("ticker", tool, "ofirst", "t"))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/ticker", "--timeout=30s")
    with cluster.following("logs", "-f", "ticker", "--timestamps") as next_line:
        lines = [next_line() for _ in range(16)]
        assert lines[0].endswith(" first\n")
        assert all(line.endswith(" tick\n") for line in lines[1:])
        # kubectl gives the API whole seconds; the first line is more than one older than the last.
        recent = cluster.kubectl("logs", "ticker", f"--since-time={lines[-1].split()[0]}").splitlines()
        assert set(recent) == {"tick"}
        assert 1 <= len(cluster.kubectl("logs", "ticker", "--since=1s").splitlines()) <= 12
        cluster.kubectl("delete", "pod", "ticker", "--wait=false")
        eventually(lambda: next_line() == "", "the end of the log", timeout=20)


def test_previous_logs_of_a_container_that_never_restarted_are_a_clear_error(cluster: Cluster, tool: str) -> None:
    cluster.make(pod("no-previous", tool, "oonly"))
    cluster.wait_for_phase("no-previous", "Succeeded")
    assert "previous" in cluster.kubectl("logs", "no-previous", "--previous", code=1)
    assert "no-such" in cluster.kubectl("logs", "no-previous", "-c", "no-such", code=1)


# --- Controllers ------------------------------------------------------------------------------------------------------


def test_a_job_completes_and_a_failing_one_uses_its_retries(cluster: Cluster, tool: str) -> None:
    def job(name: str, *args: str, **spec: Any) -> dict[str, Any]:
        template = {"spec": pod(name, tool, *args)["spec"]}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {"template": template, **spec},
        }

    cluster.make(job("works", "owell", completions=3, parallelism=2), job("fails", "x1", backoffLimit=1))
    cluster.kubectl("wait", "--for=condition=Complete", "job/works", "--timeout=60s")
    assert cluster.get("job", "works")["status"]["succeeded"] == 3
    assert cluster.kubectl("logs", "job/works") == "well\n"
    cluster.kubectl("wait", "--for=condition=Failed", "job/fails", "--timeout=60s")
    assert cluster.get("job", "fails")["status"]["failed"] == 2


def test_a_deployment_scales_up_and_down_and_replaces_a_deleted_pod(cluster: Cluster, tool: str) -> None:
    cluster.make(deployment("scales", tool, "oup", "s6000", replicas=2))
    cluster.kubectl("rollout", "status", "deployment/scales", "--timeout=60s")
    cluster.kubectl("scale", "deployment/scales", "--replicas=12")
    cluster.kubectl("rollout", "status", "deployment/scales", "--timeout=60s")
    pods = _pods_of(cluster, "scales")
    assert len({one["status"]["podIP"] for one in pods}) == 12
    cluster.kubectl("delete", "pod", pods[0]["metadata"]["name"], "--wait=false")
    cluster.kubectl("rollout", "status", "deployment/scales", "--timeout=60s")
    eventually(
        lambda: len([one for one in _pods_of(cluster, "scales") if _is_ready(one)]) == 12, "twelve ready pods again"
    )
    cluster.kubectl("scale", "deployment/scales", "--replicas=1")
    eventually(lambda: len(cluster.get("pods", "-l", "app=scales")["items"]) == 1, "all but one to be gone")
    cluster.delete("deployment", "scales")


def _is_ready(seen: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in seen["status"].get("conditions", []))


# --- Storage ----------------------------------------------------------------------------------------------------------


def _claim(name: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def test_a_claim_binds_with_its_first_pod_keeps_data_and_goes_with_them(cluster: Cluster, tool: str) -> None:
    source = mounted({"persistentVolumeClaim": {"claimName": "keeps"}})
    cluster.make(_claim("keeps"))
    assert cluster.get("pvc", "keeps")["status"]["phase"] == "Pending"  # WaitForFirstConsumer
    for number in (1, 2):
        cluster.make(pod(f"writer-{number}", tool, "a0kept", "c0kept", **source))
        cluster.wait_for_phase(f"writer-{number}", "Succeeded")
        assert cluster.kubectl("logs", f"writer-{number}") == "run\n" * number
    claim = cluster.get("pvc", "keeps")
    assert claim["status"]["phase"] == "Bound"
    assert claim["spec"]["storageClassName"] == "local-path"
    folders = [path for path in (cluster.state / "local-path").iterdir() if "keeps" in path.name]
    assert [(path / "kept").read_text() for path in folders] == ["run\nrun\n"]
    cluster.kubectl("delete", "pod", "writer-1", "writer-2")
    cluster.kubectl("delete", "pvc", "keeps")
    eventually(lambda: not folders[0].exists(), "the data to be reclaimed")
    eventually(
        lambda: claim["spec"]["volumeName"] not in cluster.kubectl("get", "pv", "-o", "name"), "the volume to be gone"
    )


# --- Images -----------------------------------------------------------------------------------------------------------


def test_an_image_that_does_not_exist_is_said_in_the_status_and_in_an_event(cluster: Cluster) -> None:
    cluster.make(pod("no-image", f"{cluster.registry}/no-such-thing:v1"))
    waiting = cluster.wait_for_waiting("no-image", "ErrImagePull", "ImagePullBackOff")
    assert waiting["message"]
    eventually(
        lambda: any("no-such-thing" in e["message"] and e["reason"] == "Failed" for e in cluster.events_of("no-image")),
        "an event that says so",
    )
    cluster.wait_for_waiting("no-image", "ImagePullBackOff")
    cluster.delete("pod", "no-image")


COMPONENT = b"\0asm\x0d\0\1\0"
BIG = wat(f'(module (memory (export "memory") 1) (data (i32.const 0) "{"x" * 60000}") (func (export "_start")))')


def _damaged(cluster: Cluster, registry: RawRegistry, case: str) -> str:
    """Puts a bad image into the registry; returns its reference."""
    if case == "component":
        registry.push(case, "v1", COMPONENT)
    elif case == "text":
        registry.push(case, "v1", b"#!/bin/sh\necho this is no module\n")
    elif case == "half":
        registry.push(case, "v1", BIG[: len(BIG) // 2])
    else:
        digest = registry.push(case, "v1", BIG + {"truncated": b"\0\2\1t", "flipped": b"\0\2\1f"}[case])
        blob = registry.blob(digest)
        whole = blob.read_bytes()
        blob.write_bytes(whole[:1000] if case == "truncated" else whole[:500] + b"!" + whole[501:])
    return f"{cluster.registry}/{case}:v1"


@pytest.mark.parametrize(
    ("case", "reasons", "words"),
    [
        ("component", ("CreateContainerError", "ErrImagePull", "ImagePullBackOff"), "component"),
        ("text", ("ErrImagePull", "ImagePullBackOff", "CreateContainerError"), "webassembly"),
        ("half", ("CreateContainerError",), "compile"),
        ("truncated", ("ErrImagePull", "ImagePullBackOff"), ""),
        ("flipped", ("ErrImagePull", "ImagePullBackOff"), "other bytes"),
    ],
)
def test_a_bad_image_is_never_run_and_the_pod_says_what_is_wrong(
    cluster: Cluster, raw_registry: RawRegistry, case: str, reasons: tuple[str, ...], words: str
) -> None:
    cluster.make(pod(f"bad-{case}", _damaged(cluster, raw_registry, case)))
    waiting = cluster.wait_for_waiting(f"bad-{case}", *reasons)
    failed = eventually(
        lambda: [e["message"] for e in cluster.events_of(f"bad-{case}") if e["reason"] == "Failed"], "an event"
    )
    said = " ".join([waiting["message"], *failed]).lower()
    assert words in said, said
    assert cluster.pod(f"bad-{case}")["status"]["phase"] == "Pending"
    cluster.delete("pod", f"bad-{case}")


def test_a_module_without_a_start_function_or_with_foreign_imports_says_so(cluster: Cluster) -> None:
    _push(cluster, "library:v1", wat('(module (memory (export "memory") 1) (func (export "add")))'))
    _push(cluster, "foreign:v1", wat('(module (import "env" "magic" (func)) (func (export "_start")))'))
    cluster.make(
        pod("library", f"{cluster.registry}/library:v1"),
        pod("foreign", f"{cluster.registry}/foreign:v1"),
    )
    _says(cluster, "library", "_start")
    _says(cluster, "foreign", "magic")


def _says(cluster: Cluster, name: str, words: str) -> None:
    eventually(lambda: words in _message(cluster, name), f"{name} to say {words}")
    cluster.delete("pod", name)


def _message(cluster: Cluster, name: str) -> str:
    """What the container's state says, whichever it is in."""
    state = container_of(cluster.pod(name)).get("state", {})
    return str((state.get("waiting") or state.get("terminated") or {}).get("message", ""))


# --- The node as kubectl sees it --------------------------------------------------------------------------------------


def test_nodes_are_ready_with_the_labels_and_taints_of_krustlet(cluster: Cluster) -> None:
    nodes = {node["metadata"]["name"]: node for node in cluster.get("nodes")["items"]}
    assert set(nodes) == {"e2e-wasi", "e2e-wascc"}
    for name, port in (("e2e-wasi", 3000), ("e2e-wascc", 3001)):
        node = nodes[name]
        arch = f"wasm32-{name.removeprefix('e2e-')}"
        assert node["metadata"]["labels"]["kubernetes.io/arch"] == arch
        assert node["metadata"]["labels"]["type"] == "krustlet"
        assert {"key": "kubernetes.io/arch", "value": arch, "effect": "NoExecute"} in node["spec"]["taints"]
        assert node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] == port
        ready = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
        assert ready["status"] == "True"
    wide = cluster.kubectl("get", "nodes", "-o", "wide")
    assert "wasmtime" in wide
    assert "<unknown>" not in cluster.kubectl("describe", "node", "e2e-wasi")


def test_the_kubelet_api_answers_the_api_server_and_refuses_strangers(cluster: Cluster) -> None:
    assert cluster.kubectl("get", "--raw", "/api/v1/nodes/e2e-wasi/proxy/healthz").strip() == "ok"
    address = cluster.get("node", "e2e-wasi")["status"]["addresses"][0]["address"]
    assert address.startswith("10.244.255.")
    block = json.loads((cluster.state / "network.json").read_text())["block"]
    real = f"127.{block}.{address.split('.', 2)[2]}"
    context = ssl.create_default_context(cafile=str(cluster.state / "pki" / "ca.crt"))
    context.check_hostname = False  # the node's certificate is for the address Kubernetes knows
    with contextlib.closing(http.client.HTTPSConnection(real, 3000, context=context, timeout=10)) as stranger:
        stranger.request("GET", "/pods")
        assert stranger.getresponse().status == 401


def test_a_wascc_pod_fails_with_the_reason(cluster: Cluster, tool: str) -> None:
    cluster.make(pod("wascc", tool, nodeSelector={"kubernetes.io/arch": "wasm32-wascc"}))
    seen = cluster.wait_for_phase("wascc", "Failed")
    assert seen["status"]["reason"]
    assert "wascc" in seen["status"]["message"]


def test_exec_and_port_forward_say_why_there_is_no_such_thing(cluster: Cluster, tool: str) -> None:
    cluster.make(pod("no-shell", tool, "s6000"))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/no-shell", "--timeout=30s")
    assert "WebAssembly" in cluster.kubectl("exec", "no-shell", "--", "sh", code=1)
    cluster.delete("pod", "no-shell")


def test_the_life_of_a_pod_is_told_in_events_once_each(cluster: Cluster, tool: str) -> None:
    cluster.make(pod("told", tool, "ohi"))
    cluster.wait_for_phase("told", "Succeeded")
    wanted = {"Scheduled", "Pulled", "Created", "Started"}
    eventually(lambda: wanted <= {event["reason"] for event in cluster.events_of("told")}, f"the events {wanted}")
    events = cluster.events_of("told")
    assert all(event.get("count") in (None, 0, 1) for event in events)
    conditions = {c["type"]: c["status"] for c in cluster.pod("told")["status"]["conditions"]}
    assert conditions["PodScheduled"] == conditions["Initialized"] == "True"
    assert conditions["Ready"] == "False"


def test_a_container_pod_stays_pending_with_a_reason(cluster: Cluster) -> None:
    spec = pod("container", "docker.io/library/busybox", tolerations=[], nodeSelector={})
    cluster.make(spec)
    eventually(
        lambda: any(
            "taint" in e["message"] for e in cluster.events_of("container") if e["reason"] == "FailedScheduling"
        ),
        "the scheduler to say why",
    )
    assert cluster.pod("container")["status"]["phase"] == "Pending"
    cluster.delete("pod", "container")


def test_a_cron_job_has_run_by_now(cluster: Cluster) -> None:
    job = eventually(
        lambda: [
            one
            for one in cluster.get("jobs")["items"]
            if any(owner["name"] == "clockwork" for owner in one["metadata"].get("ownerReferences", []))
            and one["status"].get("succeeded")
        ],
        "a job of the minute to be done",
        timeout=90,
    )[0]
    assert cluster.kubectl("logs", f"job/{job['metadata']['name']}") == "time\n"
