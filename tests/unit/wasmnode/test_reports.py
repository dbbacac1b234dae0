"""What reaches the API: statuses in order and once, events counted and never in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cinderctl.kube.aio import AsyncKube
from cinderctl.kube.endpoint import Endpoint
from cinderctl.wasmnode.events import Events
from cinderctl.wasmnode.podspec import Pod
from cinderctl.wasmnode.status_writer import StatusWriter, covers
from tests.fakes.apiserver import FakeApiServer, pod
from tests.unit.wasmnode.conftest import FAST


def with_api(body: Callable[[FakeApiServer, AsyncKube, list[Any]], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with FakeApiServer().serving() as api, AsyncKube(Endpoint(api.url)) as kube:
            await body(api, kube, [])

    asyncio.run(inside())


def test_only_the_newest_status_is_sent_but_running_never_skipped() -> None:
    async def body(api: FakeApiServer, kube: AsyncKube, said: list[Any]) -> None:
        path = api.add_pod(pod("p"))
        writer = StatusWriter(kube, FAST, said.append)
        subject = Pod(api.objects[path])
        for status in ({"phase": "Pending", "n": 1}, {"phase": "Pending", "n": 2}, {"phase": "Running", "n": 3}):
            writer.submit(subject, status)
        writer.submit(subject, {"phase": "Running", "n": 4})
        writer.submit(subject, {"phase": "Succeeded", "n": 5})
        await writer.settled(subject.uid)
        sent = [v["status"].get("n") for v in api.versions_of(path)[1:]]
        assert sent[-2:] == [4, 5]
        count = len(api.requests)
        writer.submit(subject, {"phase": "Succeeded", "n": 5})
        await writer.settled(subject.uid)
        assert len(api.requests) == count

    with_api(body)


def test_statuses_wait_for_the_server_and_one_it_refuses_holds_up_nothing() -> None:
    async def body(api: FakeApiServer, kube: AsyncKube, said: list[Any]) -> None:
        path = api.add_pod(pod("p"))
        answers = [503, 422]
        api.broken = lambda method, where: answers.pop(0) if method == "PATCH" and answers else None
        writer = StatusWriter(kube, FAST, said.append)
        subject = Pod(api.objects[path])
        writer.submit(subject, {"phase": "Running"})
        await writer.settled(subject.uid)
        assert len(said) == 1
        writer.submit(subject, {"phase": "Failed"})
        await writer.settled(subject.uid)
        assert api.objects[path]["status"]["phase"] == "Failed"

    with_api(body)


def test_a_pod_of_the_same_name_gets_no_status_of_its_predecessor() -> None:
    async def body(api: FakeApiServer, kube: AsyncKube, said: list[Any]) -> None:
        path = api.add_pod(pod("p"))
        old = Pod({**api.objects[path], "metadata": {**api.objects[path]["metadata"], "uid": "another"}})
        writer = StatusWriter(kube, FAST, said.append)
        writer.submit(old, {"phase": "Running"})
        await writer.settled("another")
        assert api.objects[path]["status"]["phase"] == "Pending"

    with_api(body)


@pytest.mark.parametrize(
    ("shown", "status", "same"),
    [
        ({"phase": "Running", "extra": 1}, {"phase": "Running"}, True),
        ({"phase": "Running"}, {"phase": "Failed"}, False),
        ({}, {"lastState": {}, "message": None}, True),
        ({"message": "old"}, {"message": None}, False),
        (
            {"conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "False"}]},
            {"conditions": [{"type": "B", "status": "False", "reason": None}]},
            True,
        ),
        ({"containerStatuses": []}, {"containerStatuses": [{"name": "c"}]}, False),
    ],
)
def test_what_the_api_shows_already_is_recognised(shown: Any, status: Any, same: bool) -> None:
    assert covers(shown, status) is same


def test_the_same_event_again_raises_its_count() -> None:
    async def body(api: FakeApiServer, kube: AsyncKube, said: list[Any]) -> None:
        path = api.add_pod(pod("p"))
        events = Events(kube, "node-wasi", said.append)
        task = asyncio.create_task(events.run())
        subject = Pod(api.objects[path])
        for _ in range(3):
            events.pod(subject, "Warning", "BackOff", "again", container="c")
        events.pod(subject, "Normal", "Started", "once", container="c")
        await api.until(lambda: len(api.events_of("p")) == 2)
        await api.until(lambda: api.events_of("p")[0]["count"] == 3)
        first = api.events_of("p")[0]
        assert first["involvedObject"]["fieldPath"] == "spec.containers{c}"
        assert first["source"]["host"] == "node-wasi"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with_api(body)


def test_events_outlast_a_server_that_is_away() -> None:
    async def body(api: FakeApiServer, kube: AsyncKube, said: list[Any]) -> None:
        path = api.add_pod(pod("p"))
        answers = [503]
        api.broken = lambda method, where: answers.pop() if where.endswith("/events") and answers else None
        events = Events(kube, "node-wasi", said.append)
        task = asyncio.create_task(events.run())
        events.pod(Pod(api.objects[path]), "Normal", "Started", "x")
        await api.until(lambda: api.events_of("p"))
        assert len(said) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with_api(body)
