"""What changes restarts the component it is for, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cinderctl.resources.cluster_api import ClusterApi
from cinderctl.resources.control_plane.flags import COMPONENTS, Ports, default_args
from cinderctl.resources.control_plane.process import ControlPlaneInputs, ProcessControlPlaneKind

PORTS = Ports(6443, 2379, 2380, 10257, 10259)
ARGS = default_args(pod_cidr="10.244.0.0/16", service_cidr="10.96.0.0/16", cluster_name="test")
WANT = ControlPlaneInputs(
    version="v1.36.3",
    programs={name: f"/b/{name}" for name in COMPONENTS},
    service_cidr="10.96.0.0/16",
    components={name: {"args": args, "state": "ready", "unexpected_exits": 0} for name, args in ARGS.items()},
    files={"audit-policy.json": {"rules": [{"level": "None"}]}},
    egress_config="/c/egress.json",
)


@pytest.fixture
def restarted(context):
    kind = ProcessControlPlaneKind(context, ClusterApi(context.cluster))

    def names(want: ControlPlaneInputs, ports: Ports = PORTS) -> list[str]:
        """Components that are others than those of WANT."""
        before, after = kind._components(WANT, PORTS), kind._components(want, ports)
        return [new.name for old, new in zip(before, after, strict=True) if old.digest != new.digest]

    return names


def with_args(component: str, **args: str) -> ControlPlaneInputs:
    changed = {**WANT.components[component], "args": {**ARGS[component], **args}}
    return replace(WANT, components={**WANT.components, component: changed})


def test_nothing_changed(restarted):
    assert restarted(replace(WANT)) == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_flag(component, restarted):
    assert restarted(with_args(component, v="4")) == [component]


def test_a_program_of_another_version(restarted):
    programs = {**WANT.programs, "kube-scheduler": "/other/kube-scheduler"}
    assert restarted(replace(WANT, programs=programs)) == ["kube-scheduler"]


def test_the_content_of_an_audit_policy(restarted):
    """It is read at the start, and stands under the same name."""
    files = {"audit-policy.json": {"rules": [{"level": "Metadata"}]}}
    assert restarted(replace(WANT, files=files)) == ["kube-apiserver"]


def test_a_port(restarted):
    assert restarted(WANT, replace(PORTS, scheduler=10300)) == ["kube-scheduler"]


def test_places_are_filled_in_where_a_component_runs_and_not_in_what_plans_show(context):
    kind = ProcessControlPlaneKind(context, ClusterApi(context.cluster))
    want = with_args("kube-apiserver", **{"audit-policy-file": "{config}/audit-policy.json"})
    api_server = next(one for one in kind._components(want, PORTS) if one.name == "kube-apiserver")
    assert f"--audit-policy-file={context.cluster.root}/config/audit-policy.json" in api_server.argv
    assert api_server.config["args"]["audit-policy-file"] == "{config}/audit-policy.json"
