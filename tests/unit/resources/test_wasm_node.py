"""A certificate request is approved only when it is the node's own."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cinderctl.pki import Subject, certificate_request, new_private_key
from cinderctl.resources.wasm_node import WasmNodeInputs, _condition, _is_its_own, _taints

NODE = "cinder-wasi"
TOKEN = "abcdef.0123456789abcdef"
WANT = WasmNodeInputs(arch="wasm32-wasi", node_ip="10.244.255.1")
KEY = new_private_key()
CLIENT = ("digital signature", "client auth")
SERVING = ("digital signature", "key encipherment", "server auth")
OWN = "system:node:cinder-wasi"


def pem(
    name: str = OWN,
    organizations: tuple[str, ...] = ("system:nodes",),
    dns: tuple[str, ...] = (),
    ips: tuple[str, ...] = (),
) -> bytes:
    return certificate_request(KEY, Subject(name, organizations, dns, ips))


def request(
    body: bytes, username: str, signer: str = "kube-apiserver-client-kubelet", usages: tuple[str, ...] = CLIENT
) -> dict[str, Any]:
    return {
        "spec": {
            "request": base64.b64encode(body).decode(),
            "signerName": f"kubernetes.io/{signer}",
            "username": username,
            "usages": list(usages),
        }
    }


def serving(body: bytes, username: str = OWN, usages: tuple[str, ...] = SERVING) -> dict[str, Any]:
    return request(body, username, "kubelet-serving", usages)


def ed25519_request() -> bytes:
    """Of a kind of key that no agent of ours has."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, OWN)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    return builder.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.PEM)


BOOTSTRAP = "system:bootstrap:abcdef"


@pytest.mark.parametrize(
    ("asked", "own"),
    [
        pytest.param(request(pem(), BOOTSTRAP), True, id="first client certificate, by its token"),
        pytest.param(request(pem(), OWN), True, id="client certificate renewed by the node"),
        pytest.param(serving(pem(dns=(NODE,), ips=("10.244.255.1",))), True, id="serving certificate"),
        pytest.param(serving(pem(ips=("10.244.255.1",))), True, id="serving certificate without its name"),
        pytest.param(request(pem(), "system:bootstrap:zzzzzz"), False, id="another token"),
        pytest.param(request(pem(), "kubernetes-admin"), False, id="another user"),
        pytest.param(request(pem("system:node:other"), BOOTSTRAP), False, id="for another node"),
        pytest.param(request(pem("kubernetes-admin", ("system:masters",)), BOOTSTRAP), False, id="for an admin"),
        pytest.param(
            request(pem(organizations=("system:nodes", "system:masters")), BOOTSTRAP), False, id="more groups"
        ),
        pytest.param(request(pem(organizations=()), BOOTSTRAP), False, id="no group"),
        pytest.param(request(pem(dns=(NODE,)), BOOTSTRAP), False, id="client certificate with a name to serve"),
        pytest.param(request(pem(), BOOTSTRAP, usages=(*CLIENT, "server auth")), False, id="client and server"),
        pytest.param(request(pem(), BOOTSTRAP, usages=("digital signature",)), False, id="no use at all"),
        pytest.param(request(pem(), BOOTSTRAP, "kube-apiserver-client"), False, id="another signer"),
        pytest.param(request(pem(), BOOTSTRAP, "legacy-unknown"), False, id="the legacy signer"),
        pytest.param(serving(pem(dns=("kubernetes.default",))), False, id="serving for somebody else's name"),
        pytest.param(serving(pem(dns=(NODE,), ips=("127.0.0.1",))), False, id="serving for another address"),
        pytest.param(serving(pem(dns=(NODE,)), BOOTSTRAP), False, id="serving, by the token"),
        pytest.param(serving(pem(dns=(NODE,)), "system:node:other"), False, id="serving, by another node"),
        pytest.param(serving(pem(dns=(NODE,)), usages=(*SERVING, "client auth")), False, id="serving and client"),
        pytest.param(request(b"no request", BOOTSTRAP), False, id="no request"),
        pytest.param(request(ed25519_request(), BOOTSTRAP), False, id="a key of another kind"),
    ],
)
def test_is_its_own(asked, own):
    assert _is_its_own(asked, NODE, WANT, TOKEN) is own


def test_what_is_no_base64_is_not_its_own():
    broken = request(pem(), BOOTSTRAP)
    broken["spec"]["request"] = "§"
    assert not _is_its_own(broken, NODE, WANT, TOKEN)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (None, "no Node object"),
        ({}, "no Ready condition"),
        ({"status": {"conditions": [{"type": "DiskPressure", "status": "False"}]}}, "no Ready condition"),
        ({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "Ready"),
        (
            {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}},
            "NotReady (NodeStatusUnknown)",
        ),
    ],
)
def test_condition(node, words):
    assert _condition(node) == words


def test_taints_that_kubernetes_puts_on_for_a_moment_are_not_ours():
    node = {
        "spec": {
            "taints": [
                {"key": "kubernetes.io/arch", "value": "wasm32-wasi", "effect": "NoExecute"},
                {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule", "timeAdded": "2030-01-01T00:00:00Z"},
                {"key": "mine", "effect": "NoSchedule", "timeAdded": "2030-01-01T00:00:00Z"},
            ]
        }
    }
    assert _taints(node) == [
        {"key": "kubernetes.io/arch", "value": "wasm32-wasi", "effect": "NoExecute"},
        {"key": "mine", "effect": "NoSchedule"},
    ]
