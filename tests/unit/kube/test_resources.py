"""Paths, quantities and times as the API conventions write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from cinderctl.kube.resources import (
    format_micro_time,
    format_quantity,
    format_time,
    parse_quantity,
    parse_time,
    path_of,
)


@pytest.mark.parametrize(
    ("args", "path"),
    [
        (("v1", "Pod", "default", "a"), "/api/v1/namespaces/default/pods/a"),
        (("v1", "Pod"), "/api/v1/pods"),
        (("v1", "Node", "", "a"), "/api/v1/nodes/a"),
        (("v1", "Node", "ignored", "a"), "/api/v1/nodes/a"),
        (("v1", "Endpoints", "a", "b"), "/api/v1/namespaces/a/endpoints/b"),
        (("networking.k8s.io/v1", "NetworkPolicy", "a"), "/apis/networking.k8s.io/v1/namespaces/a/networkpolicies"),
        (
            ("rbac.authorization.k8s.io/v1", "ClusterRole", "", "system:node"),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
        ),
        (("v1", "ConfigMap", "a", "b/../c"), "/api/v1/namespaces/a/configmaps/b%2F..%2Fc"),
    ],
)
def test_paths_of_builtin_kinds(args: tuple[str, ...], path: str) -> None:
    assert path_of(*args) == path


def test_a_namespaced_object_needs_its_namespace() -> None:
    with pytest.raises(ValueError, match="namespace"):
        path_of("v1", "Pod", name="a")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", "0.5"),
        ("2", "2"),
        ("1Gi", str(2**30)),
        ("1.5Ki", "1536"),
        ("12E", "12e18"),
        ("1e3", "1000"),
        ("5k", "5000"),
    ],
)
def test_quantities_are_read(text: str, value: str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi x", "abc", "NaN", "Infinity", "1MiB"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("value", "binary", "text"),
    [
        (2**34, True, "16Gi"),
        (1000, True, "1000"),
        (5000, False, "5k"),
        (0, True, "0"),
        (Decimal("0.25"), False, "250m"),
    ],
)
def test_quantities_are_written_canonically(value: Decimal, binary: bool, text: str) -> None:
    assert format_quantity(value, binary=binary) == text


def test_times_are_utc_both_ways() -> None:
    moment = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
    assert format_time(moment.astimezone(timezone(timedelta(hours=2)))) == "2026-03-04T05:06:07Z"
    assert format_micro_time(moment) == "2026-03-04T05:06:07.000089Z"
    assert parse_time("2026-03-04T05:06:07.000089Z") == moment
    assert parse_time("2026-03-04T07:06:07.000089999+02:00") == moment
    assert parse_time("2026-03-04T05:06:07.5Z").microsecond == 500_000
    with pytest.raises(ValueError, match="time zone"):
        parse_time("2026-03-04T05:06:07")
