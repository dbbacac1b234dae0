"""What a kind relies on when it talks to an API server."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cinderctl.core.diagnostics import TransientError
from cinderctl.kube.client import KubeClient
from cinderctl.kube.endpoint import Endpoint, ssl_context
from cinderctl.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    KubeError,
    NotFoundError,
    ThrottledError,
    UnauthorizedError,
    UnavailableError,
    UnknownKindError,
    UnreachableError,
)
from tests.unit.kube.fake_api import FakeApi, status

NODES = "/api/v1/nodes"
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def kube(api: FakeApi) -> KubeClient:
    return KubeClient.from_endpoint(Endpoint(api.url, token="abc"))


def config_map(name: str, **data: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_objects_can_be_created_read_changed_and_deleted(kube: KubeClient) -> None:
    kube.create(MAPS, config_map("a", x="1"))
    kube.patch(f"{MAPS}/a", {"data": {"y": "2"}})
    assert kube.get(f"{MAPS}/a")["data"] == {"x": "1", "y": "2"}
    kube.delete(f"{MAPS}/a")
    assert kube.get_or_none(f"{MAPS}/a") is None


def test_a_token_is_sent_and_never_shown(api: FakeApi, kube: KubeClient) -> None:
    kube.get_or_none(f"{NODES}/a")
    assert api.requests[-1].headers["Authorization"] == "Bearer abc"
    assert "abc" not in repr(Endpoint("https://x", token="abc"))


def test_lists_are_read_page_by_page_and_name_their_kind(api: FakeApi, kube: KubeClient) -> None:
    for number in range(1201):
        api.put(f"{NODES}/n{number}", {"kind": "Node", "apiVersion": "v1"})
    nodes = kube.list(NODES)
    assert len({node["metadata"]["name"] for node in nodes}) == 1201
    assert (nodes[0]["kind"], nodes[0]["apiVersion"]) == ("Node", "v1")
    assert len(api.requests) == 3


def test_a_list_whose_token_grew_old_begins_again(api: FakeApi, kube: KubeClient) -> None:
    for number in range(600):
        api.put(f"{NODES}/n{number}", {"kind": "Node"})
    api.expire_pages()
    assert len(kube.list(NODES)) == 600


def test_lists_take_selectors(api: FakeApi, kube: KubeClient) -> None:
    api.put(f"{NODES}/a", {"metadata": {"labels": {"x": "1"}}})
    api.put(f"{NODES}/b", {})
    assert [n["metadata"]["name"] for n in kube.list(NODES, label_selector="x=1")] == ["a"]
    assert [n["metadata"]["name"] for n in kube.list(NODES, field_selector="metadata.name=b")] == ["b"]


def test_apply_is_server_side_with_our_field_manager(api: FakeApi, kube: KubeClient) -> None:
    stored = kube.apply(config_map("a", x="1"), force=True)
    request = api.requests[-1]
    assert stored["data"] == {"x": "1"}
    assert (request.method, request.path) == ("PATCH", f"{MAPS}/a")
    assert request.query == {"fieldManager": "cinderctl", "force": "true"}
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"


def test_a_dry_run_stores_nothing(api: FakeApi, kube: KubeClient) -> None:
    kube.dry_run_apply(config_map("a", x="1"))
    assert api.requests[-1].query["dryRun"] == "All"
    assert kube.get_or_none(f"{MAPS}/a") is None


def test_an_apply_conflict_names_fields_and_managers(api: FakeApi, kube: KubeClient) -> None:
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl-edit" using v1', "field": ".data.x"}
    api.answer_next(409, status(409, "Conflict", "Apply failed with 1 conflict", causes=[cause]))
    with pytest.raises(ConflictError) as caught:
        kube.apply(config_map("a", x="1"))
    assert [(c.field, c.message) for c in caught.value.causes] == [(".data.x", 'conflict with "kubectl-edit" using v1')]


def test_a_deletion_can_insist_on_the_object_it_saw(api: FakeApi, kube: KubeClient) -> None:
    uid = api.put(f"{MAPS}/a", {})["metadata"]["uid"]
    with pytest.raises(ConflictError):
        kube.delete(f"{MAPS}/a", preconditions_uid="other")
    kube.delete(f"{MAPS}/a", grace=0, preconditions_uid=uid)
    assert api.requests[-1].body["gracePeriodSeconds"] == 0


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", InvalidError),
        (401, "Unauthorized", UnauthorizedError),
        (403, "Forbidden", ForbiddenError),
        (404, "NotFound", NotFoundError),
        (409, "AlreadyExists", AlreadyExistsError),
        (409, "Conflict", ConflictError),
        (410, "Gone", GoneError),
        (410, "Expired", GoneError),
        (422, "Invalid", InvalidError),
        (500, "InternalError", KubeError),
        (503, "ServiceUnavailable", UnavailableError),
    ],
)
def test_refusals_are_told_in_the_servers_words(
    api: FakeApi, kube: KubeClient, code: int, reason: str, kind: type[KubeError]
) -> None:
    api.answer_next(code, status(code, reason, "nodes is a secret"))
    with pytest.raises(KubeError) as caught:
        kube.get(NODES)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.reason, str(caught.value)) == (code, reason, "nodes is a secret")
    assert caught.value.diagnostics[0].detail == f"GET {NODES} was answered with {code} {reason}"


def test_throttling_says_when_to_come_back(api: FakeApi, kube: KubeClient) -> None:
    api.answer_next(429, "too many requests", {"Retry-After": "7"})
    with pytest.raises(ThrottledError) as caught:
        kube.get(NODES)
    assert isinstance(caught.value, TransientError)
    assert caught.value.retry_after == 7


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UnreachableError) as caught:
        KubeClient.from_endpoint(Endpoint(f"http://127.0.0.1:{port}")).get(NODES)
    assert isinstance(caught.value, TransientError)


def test_a_server_that_says_nothing_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        kube = KubeClient.from_endpoint(Endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        with pytest.raises(UnreachableError, match="did not answer in time"):
            kube.request("GET", NODES, timeout=0.1)


def test_missing_credentials_are_named() -> None:
    with pytest.raises(KubeError) as caught:
        ssl_context(Endpoint("https://127.0.0.1:1", ca_file="/nowhere/ca.crt"))
    assert "/nowhere/ca.crt" in caught.value.diagnostics[0].detail


def test_builtin_kinds_need_no_round_trip(api: FakeApi, kube: KubeClient) -> None:
    assert (
        kube.path("apps/v1", "Deployment", "kube-system", "dns")
        == "/apis/apps/v1/namespaces/kube-system/deployments/dns"
    )
    assert kube.path("v1", "Pod") == "/api/v1/pods"
    assert not kube.namespaced("storage.k8s.io/v1", "StorageClass")
    assert api.requests == []


def test_other_kinds_are_discovered_once(api: FakeApi, kube: KubeClient) -> None:
    resources = [
        {"name": "gateways", "kind": "Gateway", "namespaced": True},
        {"name": "gateways/status", "kind": "Gateway", "namespaced": True},
    ]
    api.answer_next(200, {"kind": "APIResourceList", "resources": resources})
    expected = "/apis/gateway.networking.k8s.io/v1/namespaces/a/gateways/b"
    assert kube.path("gateway.networking.k8s.io/v1", "Gateway", "a", "b") == expected
    assert kube.namespaced("gateway.networking.k8s.io/v1", "Gateway")
    assert [r.path for r in api.requests] == ["/apis/gateway.networking.k8s.io/v1"]


def test_an_unknown_kind_is_named_with_the_nearest_and_asked_for_again(api: FakeApi, kube: KubeClient) -> None:
    for _ in range(2):
        api.answer_next(200, {"resources": [{"name": "gateways", "kind": "Gateway", "namespaced": True}]})
        with pytest.raises(UnknownKindError, match="knows no kind Gatway in example") as caught:
            kube.path("example.com/v1", "Gatway", "a", "b")
        assert "Gateway" in caught.value.diagnostics[0].hint
    api.answer_next(200, {"resources": [{"name": "gatways", "kind": "Gatway", "namespaced": False}]})
    assert kube.path("example.com/v1", "Gatway", name="b") == "/apis/example.com/v1/gatways/b"


def test_the_server_says_its_version(kube: KubeClient) -> None:
    assert kube.server_version() == "v1.36.3"


def kubeconfig(folder: Path, url: str, user: dict[str, object]) -> str:
    path = folder / "config"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return str(path)


def test_a_kubeconfig_with_an_exec_plugin_works(api: FakeApi, tmp_path: Path) -> None:
    credential = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t1"}}
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", f"print('''{json.dumps(credential)}''')"],
        "interactiveMode": "Never",
    }
    api.put(f"{NODES}/a", {})
    kube = KubeClient.from_kubeconfig(kubeconfig(tmp_path, api.url, {"exec": plugin}), "x")
    assert kube.get(f"{NODES}/a")["metadata"]["name"] == "a"
    assert api.requests[-1].headers["Authorization"] == "Bearer t1"


@pytest.mark.parametrize(
    ("text", "context", "words"),
    [
        ("{", "x", "context 'x'"),
        ("apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\n", None, "the current context"),
    ],
)
def test_an_unusable_kubeconfig_is_a_clear_error(tmp_path: Path, text: str, context: str | None, words: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(KubeError, match=words):
        KubeClient.from_kubeconfig(str(path), context)


def test_a_client_for_our_own_cluster_does_not_load_the_kubernetes_package() -> None:
    code = (
        "import sys; from cinderctl.kube.client import KubeClient; from cinderctl.kube.endpoint import Endpoint;"
        "KubeClient.from_endpoint(Endpoint('http://127.0.0.1:1'));"
        "import cinderctl.kube.aio; sys.exit(any(m in sys.modules for m in ('kubernetes', 'requests', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_secret_data_passes_through_unchanged(api: FakeApi, kube: KubeClient) -> None:
    value = base64.b64encode(b"\x00\xff").decode()
    kube.create("/api/v1/namespaces/a/secrets", {"metadata": {"name": "s"}, "data": {"k": value}})
    assert kube.get("/api/v1/namespaces/a/secrets/s")["data"]["k"] == value


def test_a_client_certificate_says_who_we_are(tls_server: tuple[int, dict[str, Path]]) -> None:
    port, files = tls_server
    endpoint = Endpoint(
        f"https://127.0.0.1:{port}", str(files["ca.crt"]), str(files["client.crt"]), str(files["client.key"])
    )
    kube = KubeClient.from_endpoint(endpoint)
    assert kube.get(NODES) == {"peer": "client"}
    kube.close()


def test_a_server_of_another_ca_is_not_spoken_to(tls_server: tuple[int, object]) -> None:
    with pytest.raises(UnreachableError, match="no trusted TLS"):
        KubeClient.from_endpoint(Endpoint(f"https://127.0.0.1:{tls_server[0]}", token="secret")).get(NODES)
