"""The environment and arguments a guest sees."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cinderctl.kube.aio import AsyncKube
from cinderctl.kube.endpoint import Endpoint
from cinderctl.wasmnode.env import (
    ContainerConfigError,
    PodFacts,
    arguments,
    environment,
    expand,
    field_value,
    resource_value,
)
from cinderctl.wasmnode.objects import Objects
from cinderctl.wasmnode.podspec import Pod
from tests.fakes.apiserver import FakeApiServer, pod

FACTS = PodFacts("10.244.255.1", "10.244.1.7", memory=8 << 30, cpus=4)
POD = Pod(
    pod(
        "web",
        labels={"app": "web", "a/b": "x"},
        annotations={"note": 'say "hi"'},
        uid="u-1",
        serviceAccountName="robot",
    )
)


def env_of(container: dict[str, Any], *objects: tuple[str, dict[str, Any]]) -> dict[str, str]:
    async def inside() -> dict[str, str]:
        async with FakeApiServer().serving() as api:
            for kind, obj in objects:
                api.add(f"/api/v1/namespaces/default/{kind}", obj)
            async with AsyncKube(Endpoint(api.url)) as kube:
                return await environment(container, POD, FACTS, Objects(kube))

    return asyncio.run(inside())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$$(A)", "$(A)"),
        ("$(MISSING)", "$(MISSING)"),
        ("$A $", "$A $"),
        ("$$$(A)", "$1"),
        ("$(", "$("),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


def test_arguments_have_no_program_name_unless_a_command_is_given() -> None:
    assert arguments({}, {}) == ()
    assert arguments({"args": ["$(A)"]}, {"A": "1"}) == ("1",)
    assert arguments({"command": ["prog"], "args": ["x"]}, {}) == ("prog", "x")


def test_a_nul_in_an_argument_is_refused_not_cut() -> None:
    with pytest.raises(ContainerConfigError, match="NUL"):
        arguments({"args": ["a\0b"]}, {})


def test_values_come_in_order_and_see_what_stands_before_them() -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(C)"}, {"name": "C", "value": "3"}]
    assert env_of({"env": env}) == {"A": "1", "B": "1-$(C)", "C": "3"}


def test_sources_are_read_and_env_wins_over_env_from() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"secretRef": {"name": "s"}}],
        "env": [
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "word"}}},
            {"name": "P_a", "value": "mine"},
            {"name": "USES", "value": "$(P_b)"},
        ],
    }
    found = env_of(
        container,
        ("configmaps", {"metadata": {"name": "cm"}, "data": {"a": "1", "b": "2", "no good": "x"}}),
        ("secrets", {"metadata": {"name": "s"}, "data": {"word": "aGk="}}),
    )
    assert found == {"P_a": "mine", "P_b": "2", "word": "hi", "KEY": "hi", "USES": "2"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
        ({"configMapKeyRef": {"name": "cm", "key": "k"}}, "couldn't find key k in ConfigMap default/cm"),
        ({"fieldRef": {"fieldPath": "spec.nope"}}, "unsupported fieldPath: spec.nope"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ContainerConfigError) as caught:
        env_of({"env": [{"name": "A", "valueFrom": source}]}, ("configmaps", {"metadata": {"name": "cm"}, "data": {}}))
    assert str(caught.value) == message


def test_optional_sources_may_be_missing() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "no", "optional": True}}],
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": True}}}],
    }
    assert env_of(container) == {}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "default"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['a/b']", "x"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", 'say "hi"'),
        ("metadata.annotations", 'note="say \\"hi\\""'),
        ("metadata.labels", 'a/b="x"\napp="web"'),
        ("spec.nodeName", "node-wasi"),
        ("spec.serviceAccountName", "robot"),
        ("status.hostIP", "10.244.255.1"),
        ("status.podIP", "10.244.1.7"),
        ("status.podIPs", "10.244.1.7"),
    ],
)
def test_field_references(path: str, value: str) -> None:
    assert field_value(path, POD, FACTS) == value


@pytest.mark.parametrize(
    ("ref", "value"),
    [
        ({"resource": "limits.cpu"}, "2"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "1500"),
        ({"resource": "requests.memory", "divisor": "1Mi"}, "64"),
        ({"resource": "limits.memory", "divisor": "1Gi"}, "8"),
        ({"resource": "requests.cpu"}, "0"),
    ],
)
def test_resource_references_round_up_and_fall_back_to_the_node(ref: dict[str, Any], value: str) -> None:
    container = {"resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}}
    assert resource_value(ref, container, FACTS) == value


def test_a_burst_of_pods_asks_for_one_config_map_a_few_times_and_sees_the_newest() -> None:
    async def inside() -> tuple[int, set[str]]:
        async with FakeApiServer().serving() as api:
            api.add("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "cm"}, "data": {"a": "1"}})
            async with AsyncKube(Endpoint(api.url)) as kube:
                objects = Objects(kube)
                found = await asyncio.gather(*(objects.config_map("default", "cm") for _ in range(50)))
                return len(api.requests), {f["data"]["a"] for f in found if f}

    requests, values = asyncio.run(inside())
    assert requests <= 3
    assert values == {"1"}
