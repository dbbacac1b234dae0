"""Whose hand is on which field: what drift reports say about the world."""

from __future__ import annotations

from typing import Any

from cinderctl.kube.fields import changed_by, dotted, owned_fields


def entry(manager: str, time: str, fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "manager": manager,
        "operation": "Update",
        "time": time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    } | more


DEPLOYMENT = {
    "metadata": {
        "name": "a",
        "finalizers": ["x/one", "x/two"],
        "annotations": {"example.com/a": "1"},
        "managedFields": [
            entry(
                "cinderctl",
                "2026-01-01T10:00:00Z",
                {
                    "f:metadata": {"f:annotations": {"f:example.com/a": {}}, "f:finalizers": {'v:"x/two"': {}}},
                    "f:spec": {
                        "f:template": {
                            "f:spec": {
                                "f:containers": {
                                    'k:{"name":"web"}': {
                                        ".": {},
                                        "f:name": {},
                                        "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}}},
                                    }
                                }
                            }
                        }
                    },
                },
                operation="Apply",
            ),
            entry("kubectl-edit", "2026-01-01T11:00:00Z", {"f:spec": {"f:replicas": {}}}),
            entry("hpa", "2026-01-01T12:00:00Z", {"f:spec": {"f:replicas": {}, "f:gone": {'k:{"name":"z"}': {}}}}),
            entry("kcm", "2026-01-01T13:00:00Z", {"f:status": {"f:replicas": {}}}, subresource="status"),
        ],
    },
    "spec": {
        "replicas": 3,
        "template": {"spec": {"containers": [{"name": "side"}, {"name": "web", "ports": [{"containerPort": 80}]}]}},
    },
}


def test_owned_fields_are_paths_into_the_object_with_list_items_by_place() -> None:
    containers = ("spec", "template", "spec", "containers", 1)
    assert owned_fields(DEPLOYMENT, "cinderctl") == {
        ("metadata", "annotations", "example.com/a"),
        ("metadata", "finalizers", 1),
        (*containers, "name"),
        (*containers, "ports", 0),
    }


def test_the_latest_manager_of_a_field_is_named_with_the_time() -> None:
    words = changed_by(DEPLOYMENT, but="cinderctl")
    assert words == {"spec.replicas": "hpa at 2026-01-01T12:00:00Z"}


def test_status_is_nobodys_drift() -> None:
    assert not any(path.startswith("status") for path in changed_by(DEPLOYMENT))


def test_an_object_without_managed_fields_says_nothing() -> None:
    assert changed_by({"metadata": {"name": "a"}}) == {}
    assert owned_fields({}, "x") == set()


def test_paths_are_written_with_dots() -> None:
    assert dotted(("spec", "containers", 0, "name")) == "spec.containers.0.name"
