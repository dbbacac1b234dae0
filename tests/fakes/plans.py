"""Plans made by hand, one of each case a renderer must show."""

from __future__ import annotations

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic, Severity
from cinderctl.core.values import Ref, Secret, redacted
from cinderctl.plans.model import Action, Cause, Change, FieldChange, Mode, Plan


def at(text: str) -> Address:
    return Address.parse(text)


def every_case() -> Plan:
    """Every action, cause and kind of value; what is held, unseen, warned of."""
    ca, node = at("certificate.ca"), at("wasm_node.cinder-wasi")
    changes = (
        Change(at("artifact.old"), Action.DELETE, "is no longer in the spec", recorded=(node,)),
        Change(at("certificate.sa"), Action.NO_OP),
        Change(
            ca,
            Action.REPLACE,
            "`algorithm` cannot change in place (changed in the spec)",
            (FieldChange(("algorithm",), "rsa-2048", "ecdsa-p256", Cause.SPEC, forces_replacement=True),),
            inputs={"algorithm": "ecdsa-p256", "days": 3650, "subject": None},
            source="cluster.yaml:3",
        ),
        Change(
            at("control_plane.cinder"),
            Action.UPDATE,
            "`components.kube-scheduler.args.v` changed outside by kubectl at 2024-05-01T12:00:00Z,"
            " `components.kube-apiserver.args.audit` changed in the spec, and 3 more",
            (
                FieldChange(
                    ("components", "kube-scheduler", "args", "v"),
                    "9",
                    "2",
                    Cause.WORLD,
                    changed_by="kubectl at 2024-05-01T12:00:00Z",
                ),
                FieldChange(("components", "kube-apiserver", "args", "audit"), None, "/var/log/audit", Cause.SPEC),
                FieldChange(("components", "etcd", "args", "quota"), 8, None, Cause.SPEC),
                FieldChange(("description",), "what it was before, " * 6, "what it will be, " * 6, Cause.SPEC),
                FieldChange(("mirrors", "myregistry.dev"), "http://a", "http://b", Cause.BOTH),
                FieldChange(("token",), *redacted([Secret("before"), Secret("after")]), Cause.SPEC),
                FieldChange(
                    ("caFingerprint",), "sha256:11", Ref(ca, "fingerprint"), Cause.DEPENDENCY, unknown_after=True
                ),
            ),
            depends_on=(ca,),
            recorded=(ca,),
            inputs={"components": {}, "mirrors": {}, "token": "x", "version": "v1.36.3", "ports": [6443]},
            source="cluster.yaml:12",
            relies_on={"existence": "present", "attributes.version": "0123456789abcdef"},
            fingerprint="sha256:1234",
        ),
        Change(
            node,
            Action.CREATE,
            "is gone from the world",
            depends_on=(at("control_plane.cinder"),),
            inputs={
                "port": 3000,
                "arch": "wasm32-wasi",
                "labels": {"kubernetes.io/arch": "wasm32-wasi", "empty": {}},
                "taints": [{"key": "kubernetes.io/arch", "value": "wasm32-wasi", "effect": "NoExecute"}],
                "endpoint": Ref(at("control_plane.cinder"), "endpoint"),
                "description": "a line\nand another that is long enough to be cut where the page is narrow, " * 2,
                "nothing": None,
            },
            source="cluster.yaml:30",
            cause=Cause.WORLD,
        ),
        Change(at("registry.local"), Action.ADOPT, "is there without our record", cause=Cause.WORLD),
        Change(at("manifest.web"), Action.UPDATE, "not ready: 0 of 2 replicas are available", cause=Cause.WORLD),
        Change(at("manifest.job"), Action.NO_OP, "could not be seen", held=True, source="cluster.yaml:44"),
        Change(at("file.kept"), Action.NO_OP, "is no longer in the spec, but it is protected", held=True),
    )
    return Plan(
        "cinder",
        Mode.APPLY,
        changes,
        spec_digest="sha256:abcd",
        unobserved=(Diagnostic("the API server does not answer", "connection refused", address=at("manifest.job")),),
        diagnostics=(
            Diagnostic("file.kept is kept", severity=Severity.WARNING, address=at("file.kept")),
            Diagnostic("certificate.ca expires soon", severity=Severity.WARNING, address=ca),
        ),
    )


def nothing() -> Plan:
    return Plan("cinder", Mode.APPLY, (Change(at("certificate.ca"), Action.NO_OP),))
