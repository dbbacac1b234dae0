"""WebAssembly modules as pods, seen through kubectl."""

from __future__ import annotations

from typing import Any

import yaml

from tests.e2e.conftest import HELLO, Cluster, eventually

TOLERATIONS = [{"key": "kubernetes.io/arch", "operator": "Exists"}]


def pod(name: str, image: str = "e2eregistry:5055/hello-world:v1", **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": image, **spec.pop("container", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": {"kubernetes.io/arch": "wasm32-wasi"},
            "tolerations": TOLERATIONS,
            "containers": [container],
            **spec,
        },
    }


def phase_of(cluster: Cluster, name: str) -> str:
    return str(cluster.get("pod", name)["status"].get("phase"))


def wait_for_phase(cluster: Cluster, name: str, phase: str) -> dict[str, Any]:
    eventually(lambda: phase_of(cluster, name) == phase, f"pod {name} to be {phase}")
    return cluster.get("pod", name)


def hello(cluster: Cluster, name: str) -> dict[str, Any]:
    """The example's own pod and ConfigMaps, under another name and with this suite's registry."""
    text = (HELLO / "k8s.yaml").read_text().replace("cinderegg:5000", "e2eregistry:5055")
    documents = list(yaml.safe_load_all(text))
    documents[-1]["metadata"]["name"] = name
    cluster.apply(*documents)
    return documents[-1]


def test_the_hello_world_pod_prints_its_streams_its_environment_its_arguments_and_its_file(cluster: Cluster) -> None:
    hello(cluster, "hello")
    seen = wait_for_phase(cluster, "hello", "Succeeded")
    lines = cluster.kubectl("logs", "hello").splitlines()
    assert "hello from stdout!" in lines
    assert "hello from stderr!" in lines
    assert {"POD_NAME=hello", "FOO=bar", "CONFIG_MAP_VAL=cool stuff"} <= set(lines)
    end = lines.index("Args are: []")
    assert lines[end + 1] == ""
    assert lines[end + 2].startswith("Embers glow")
    terminated = seen["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (0, "Completed")
    assert seen["spec"]["nodeName"] == "e2e-wasi"


def test_a_missing_file_makes_the_pod_fail_with_the_modules_exit_code(cluster: Cluster) -> None:
    cluster.apply(pod("no-file"))
    seen = wait_for_phase(cluster, "no-file", "Failed")
    terminated = seen["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (1, "Error")


def test_an_image_that_does_not_exist_is_said_in_the_status_and_in_an_event(cluster: Cluster) -> None:
    cluster.apply(pod("no-image", image="e2eregistry:5055/no-such-thing:v1"))

    def waiting() -> str | None:
        statuses = cluster.get("pod", "no-image")["status"].get("containerStatuses") or [{}]
        reason = statuses[0].get("state", {}).get("waiting", {}).get("reason", "")
        return reason if reason in {"ErrImagePull", "ImagePullBackOff"} else None

    assert eventually(waiting, "the pull error to be shown")
    events = cluster.kubectl("get", "events", "--field-selector", "involvedObject.name=no-image")
    assert "no-such-thing" in events
    cluster.kubectl("delete", "pod", "no-image", "--wait=true")


def test_log_options_of_kubectl_work(cluster: Cluster) -> None:
    hello(cluster, "log-options")
    wait_for_phase(cluster, "log-options", "Succeeded")
    everything = cluster.kubectl("logs", "log-options").splitlines()
    assert cluster.kubectl("logs", "log-options", "--tail=2").splitlines() == everything[-2:]
    stamped = cluster.kubectl("logs", "log-options", "--timestamps").splitlines()
    assert [line.partition(" ")[2] for line in stamped] == everything
    assert all(line[:2] == "20" and "T" in line[:11] for line in stamped)
    assert len(cluster.kubectl("logs", "log-options", "--limit-bytes=10")) == 10
    assert cluster.kubectl("logs", "log-options", "--follow").splitlines() == everything


def test_a_job_completes_and_a_failing_one_uses_its_retries(cluster: Cluster) -> None:
    template = {key: value for key, value in pod("x")["spec"].items()}
    works = {**template, "volumes": [{"name": "files", "configMap": {"name": "hello-world-files"}}]}
    works["containers"] = [
        {**template["containers"][0], "volumeMounts": [{"name": "files", "mountPath": "/mnt/storage"}]}
    ]
    hello(cluster, "for-the-config-map")
    job: dict[str, Any] = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "works"},
        "spec": {"template": {"spec": works}},
    }
    fails = {**job, "metadata": {"name": "fails"}, "spec": {"backoffLimit": 1, "template": {"spec": template}}}
    cluster.apply(job, fails)
    cluster.kubectl("wait", "--for=condition=Complete", "job/works", "--timeout=60s")
    cluster.kubectl("wait", "--for=condition=Failed", "job/fails", "--timeout=60s")
    assert cluster.get("job", "fails")["status"]["failed"] == 2


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
    described = cluster.kubectl("describe", "node", "e2e-wasi")
    assert "wasm32-wasi" in described


def test_the_kubelet_api_answers_the_api_server_and_refuses_strangers(cluster: Cluster) -> None:
    assert cluster.kubectl("get", "--raw", "/api/v1/nodes/e2e-wasi/proxy/healthz").strip() == "ok"
    block = cluster.get("node", "e2e-wasi")
    assert block["status"]["addresses"][0]["address"].startswith("10.244.255.")


def test_a_wascc_pod_fails_with_the_reason(cluster: Cluster) -> None:
    cluster.apply(pod("wascc", nodeSelector={"kubernetes.io/arch": "wasm32-wascc"}))
    seen = wait_for_phase(cluster, "wascc", "Failed")
    assert "wascc" in (seen["status"].get("message", "") + seen["status"].get("reason", "")).lower()
