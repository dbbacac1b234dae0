"""What an agent relies on when it talks to an API server and watches it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from cinderctl.kube import aio
from cinderctl.kube.aio import AsyncKube, Event
from cinderctl.kube.endpoint import Endpoint
from cinderctl.kube.errors import ConflictError, ForbiddenError, KubeError, NotFoundError, UnreachableError
from tests.unit.kube.fake_api import FakeApi, status

PODS = "/api/v1/namespaces/default/pods"
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(15):
            return await work

    return asyncio.run(bounded())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the condition is another thread's
        await asyncio.sleep(0.005)


class Watcher:
    """Takes events of a watch one at a time, skipping bookmarks."""

    def __init__(self, kube: AsyncKube, path: str = PODS, **selectors: str) -> None:
        self.events = kube.watch(path, **selectors)

    async def take(self, count: int = 1) -> list[tuple[str, str]]:
        return [(e.type, e.object.get("metadata", {}).get("name", "")) for e in await self.take_events(count)]

    async def take_events(self, count: int) -> list[Event]:
        taken: list[Event] = []
        while len(taken) < count:
            event = await anext(self.events)
            if event.type != "BOOKMARK":
                taken.append(event)
        return taken


@contextlib.asynccontextmanager
async def watching(api: FakeApi, **selectors: str) -> AsyncGenerator[tuple[Watcher, list[Exception]]]:
    errors: list[Exception] = []
    async with AsyncKube(Endpoint(api.url), on_error=errors.append) as kube:
        watcher = Watcher(kube, **selectors)
        async with contextlib.aclosing(watcher.events):
            yield watcher, errors


def test_requests_work_as_in_the_synchronous_client(api: FakeApi) -> None:
    async def work() -> None:
        async with AsyncKube(Endpoint(api.url, token="abc")) as kube:
            uid = (await kube.create(PODS, {"metadata": {"name": "a"}}))["metadata"]["uid"]
            await kube.patch(f"{PODS}/a", {"metadata": {"labels": {"x": "1"}}}, type="strategic")
            assert api.requests[-1].headers["Content-Type"] == "application/strategic-merge-patch+json"
            assert api.requests[-1].headers["Authorization"] == "Bearer abc"
            assert (await kube.get(f"{PODS}/a"))["metadata"]["labels"] == {"x": "1"}
            with pytest.raises(ConflictError):
                await kube.replace(f"{PODS}/a", {"metadata": {"resourceVersion": "1"}})
            assert [p["metadata"]["name"] for p in await kube.list(PODS, label_selector="x=1")] == ["a"]
            await kube.delete(f"{PODS}/a", grace=0, preconditions_uid=uid)
            assert await kube.get_or_none(f"{PODS}/a") is None
            with pytest.raises(NotFoundError):
                await kube.delete(f"{PODS}/a")

    run(work())


def test_a_throttled_request_waits_and_goes_on(api: FakeApi) -> None:
    api.answer_next(429, status(429, "TooManyRequests", "slow down", retryAfterSeconds=0.05))
    api.put(f"{PODS}/a", {})

    async def work() -> None:
        async with AsyncKube(Endpoint(api.url)) as kube:
            assert (await kube.get(f"{PODS}/a"))["metadata"]["name"] == "a"

    run(work())
    assert len(api.requests) == 2


def test_no_answer_within_the_timeout_is_unreachable() -> None:
    async def work(port: int) -> None:
        async with AsyncKube(Endpoint(f"http://127.0.0.1:{port}")) as kube:
            with pytest.raises(UnreachableError, match="did not answer in time"):
                await kube.request("GET", PODS, timeout=0.1)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        run(work(silent.getsockname()[1]))


def test_a_refused_connection_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def work() -> None:
        async with AsyncKube(Endpoint(f"http://127.0.0.1:{port}")) as kube:
            with pytest.raises(UnreachableError, match="cannot reach"):
                await kube.get(PODS)

    run(work())


def test_requests_in_flight_are_bounded_and_watches_do_not_count(api: FakeApi) -> None:
    async def work() -> None:
        async with AsyncKube(Endpoint(api.url), max_in_flight=2) as kube:
            watchers = [Watcher(kube) for _ in range(3)]
            for watcher in watchers:
                await watcher.take(1)
            await until(lambda: api.watching() == 3)
            await asyncio.gather(*(kube.create(PODS, {"metadata": {"name": f"p{n}"}}) for n in range(20)))
            for watcher in watchers:
                await watcher.take(20)
                await watcher.events.aclose()

    run(work())


def test_reload_takes_new_credentials_and_keeps_the_old_ones_when_they_are_unusable(api: FakeApi) -> None:
    endpoints = [Endpoint(api.url, token="one"), Endpoint(api.url, token="two")]

    async def work() -> None:
        async with AsyncKube(lambda: endpoints[0]) as kube:
            api.put(f"{PODS}/a", {})
            await kube.get(f"{PODS}/a")
            endpoints.pop(0)
            kube.reload()
            await kube.get(f"{PODS}/a")
            endpoints[0] = Endpoint("https://127.0.0.1:1", ca_file="/nowhere")
            with pytest.raises(KubeError):
                kube.reload()
            await kube.get(f"{PODS}/a")

    run(work())
    assert [r.headers["Authorization"] for r in api.requests] == ["Bearer one", "Bearer two", "Bearer two"]


def test_a_watch_begins_with_what_is_there_and_says_when_that_is_complete(api: FakeApi) -> None:
    api.put(f"{PODS}/a", {"kind": "Pod", "apiVersion": "v1"})

    async def work() -> None:
        async with watching(api) as (watcher, _):
            first, synced = await watcher.take_events(2)
            assert (first.type, first.object["kind"], synced.type) == ("ADDED", "Pod", "SYNCED")
            api.put(f"{PODS}/b", {})
            api.put(f"{PODS}/b", {"spec": {}})
            api.remove(f"{PODS}/a")
            assert await watcher.take(3) == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "a")]

    run(work())


def test_an_event_is_delivered_at_once(api: FakeApi) -> None:
    async def work() -> list[float]:
        delays: list[float] = []
        async with watching(api) as (watcher, _):
            await watcher.take(1)
            await until(lambda: api.watching() == 1)
            for number in range(20):
                begun = time.perf_counter()
                api.put(f"{PODS}/p{number}", {})
                await watcher.take(1)
                delays.append(time.perf_counter() - begun)
        return delays

    assert sorted(run(work()))[10] < 0.05


def test_a_watch_passes_selectors_on_and_asks_for_bookmarks(api: FakeApi) -> None:
    api.put(f"{PODS}/a", {"spec": {"nodeName": "n"}})
    api.put(f"{PODS}/b", {"spec": {"nodeName": "m"}})

    async def work() -> None:
        async with watching(api, field_selector="spec.nodeName=n") as (watcher, _):
            assert await watcher.take(2) == [("ADDED", "a"), ("SYNCED", "")]
            await until(lambda: api.watching() == 1)

    run(work())
    query = api.requests[-1].query
    assert (query["fieldSelector"], query["allowWatchBookmarks"]) == ("spec.nodeName=n", "true")
    assert 300 <= int(query["timeoutSeconds"]) <= 600


def test_a_broken_watch_resumes_where_it_ended_and_misses_nothing(api: FakeApi) -> None:
    async def work() -> None:
        async with watching(api) as (watcher, _):
            await watcher.take(1)
            await until(lambda: api.watching() == 1)
            api.put(f"{PODS}/a", {})
            assert await watcher.take(1) == [("ADDED", "a")]
            api.break_watches()
            api.put(f"{PODS}/b", {})
            api.remove(f"{PODS}/a")
            assert await watcher.take(2) == [("ADDED", "b"), ("DELETED", "a")]

    run(work())
    assert len([r for r in api.requests if r.query.get("watch")]) == 2
    assert len([r for r in api.requests if not r.query.get("watch")]) == 1, "a resumed watch does not list again"


def test_a_bookmark_moves_the_place_to_resume_from(api: FakeApi) -> None:
    async def work() -> None:
        async with watching(api) as (watcher, _):
            await watcher.take(1)
            await until(lambda: api.watching() == 1)
            bookmark = {"kind": "Pod", "metadata": {"resourceVersion": "100"}}
            api.say_to_watches({"type": "BOOKMARK", "object": bookmark})
            assert (await anext(watcher.events)).type == "BOOKMARK"
            api.break_watches()
            await until(lambda: len(api.requests) == 3)

    run(work())
    assert api.requests[-1].query["resourceVersion"] == "100"


def test_after_410_it_lists_again_and_tells_what_vanished_changed_and_came_back_anew(api: FakeApi) -> None:
    for name in ("gone", "same", "changed", "reborn"):
        api.put(f"{PODS}/{name}", {})

    async def work() -> None:
        async with watching(api) as (watcher, errors):
            await watcher.take(5)
            await until(lambda: api.watching() == 1)
            uid = (api.object(f"{PODS}/gone") or {})["metadata"]["uid"]
            api.answer_next(410, status(410, "Expired", "too old resource version"))
            api.break_watches()
            await until(lambda: not api.answers)
            # Between the refused resumption and the new list the test is faster than the client's pause.
            api.remove(f"{PODS}/gone")
            api.put(f"{PODS}/changed", {"spec": {}})
            api.remove(f"{PODS}/reborn")
            api.put(f"{PODS}/reborn", {})
            api.put(f"{PODS}/new", {})
            api.forget_history()
            events = await watcher.take_events(6)
            told = [(e.type, e.object.get("metadata", {}).get("name", "")) for e in events]
            assert sorted(told[:2]) == [("DELETED", "gone"), ("DELETED", "reborn")]
            assert told[2:] == [("MODIFIED", "changed"), ("ADDED", "reborn"), ("ADDED", "new"), ("SYNCED", "")]
            gone = next(e.object["metadata"] for e in events if e.object["metadata"]["name"] == "gone")
            assert (gone["uid"], gone["namespace"]) == (uid, "default")
            assert errors == []

    run(work())


def test_410_as_an_event_of_the_stream_lists_again(api: FakeApi) -> None:
    async def work() -> None:
        async with watching(api) as (watcher, errors):
            await watcher.take(1)
            await until(lambda: api.watching() == 1)
            api.say_to_watches({"type": "ERROR", "object": status(410, "Expired", "too old resource version")})
            assert await watcher.take(1) == [("SYNCED", "")]
            assert errors == []

    run(work())


def test_a_watch_outlives_errors_and_reports_them(api: FakeApi) -> None:
    api.answer_next(403, status(403, "Forbidden", "pods is forbidden"))
    api.answer_next(200, "not JSON at all")
    api.put(f"{PODS}/a", {})

    async def work() -> None:
        async with watching(api) as (watcher, errors):
            assert await watcher.take(2) == [("ADDED", "a"), ("SYNCED", "")]
            assert isinstance(errors[0], ForbiddenError)
            assert len(errors) == 2

    run(work())


@pytest.mark.parametrize("line", [b"{not JSON\n", b'{"type":"ADDED"}\n', b"[]\n"])
def test_a_stream_of_nonsense_is_reported_and_begun_anew(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    monkeypatch.setattr(aio, "_LASTED", 0.01)

    async def work() -> None:
        async with watching(api) as (watcher, errors):
            await watcher.take(1)
            await until(lambda: api.watching() == 1)
            api.write_to_watches(line)
            assert await watcher.take(1) == [("SYNCED", "")]
            assert errors

    run(work())


def test_large_objects_and_lines_split_anywhere_arrive_whole(api: FakeApi) -> None:
    async def work() -> None:
        async with watching(api) as (watcher, _):
            await watcher.take(1)
            await until(lambda: api.watching() == 1)
            api.chunk = 1000
            api.put(f"{PODS}/big", {"data": "ä" * 30_000})
            (event,) = await watcher.take_events(1)
            assert event.object["data"] == "ä" * 30_000
            api.chunk = 0
            api.put(f"{PODS}/huge", {"data": "x" * 3_000_000})
            (event,) = await watcher.take_events(1)
            assert len(event.object["data"]) == 3_000_000

    run(work())


def test_a_slow_reader_does_not_stop_the_stream_from_being_read(api: FakeApi) -> None:
    """The API server closes a watch whose socket is full; the reader's pace must not matter."""
    got = threading.Event()

    async def work() -> None:
        async with watching(api) as (watcher, _):
            await watcher.take(1)
            await until(lambda: api.watching() == 1)
            for number in range(30):  # 6 MB: more than socket buffers hold
                api.put(f"{PODS}/p{number}", {"data": "x" * 200_000})
            await until(lambda: all(stream.empty() for stream in api._streams))
            got.set()
            assert len(await watcher.take(30)) == 30

    run(work())
    assert got.is_set()
    assert len([r for r in api.requests if r.query.get("watch")]) == 1


def test_leaving_a_watch_closes_its_connection(api: FakeApi) -> None:
    async def work() -> None:
        async with watching(api) as (watcher, _):
            await watcher.take(1)
            await until(lambda: api.watching() == 1)
        api.put(f"{PODS}/a", {})  # the server notices when it writes
        api.put(f"{PODS}/b", {})
        await until(lambda: api.watching() == 0)
        assert not [t for t in asyncio.all_tasks() if t.get_name() == "watch"]

    run(work())


def test_a_request_outside_the_context_is_a_programming_error() -> None:
    async def work() -> None:
        with pytest.raises(RuntimeError):
            await AsyncKube(Endpoint("http://127.0.0.1:1")).get(PODS)

    run(work())


def test_an_untrusted_server_is_never_spoken_to(tls_server: tuple[int, Any]) -> None:
    port, _ = tls_server

    async def work() -> None:
        async with AsyncKube(Endpoint(f"https://127.0.0.1:{port}", token="secret")) as kube:
            with pytest.raises(UnreachableError, match="not trusted"):
                await kube.get(PODS)

    run(work())


def test_a_server_of_our_ca_is_trusted_with_a_client_certificate(tls_server: tuple[int, Any], api: FakeApi) -> None:
    port, files = tls_server

    async def work() -> None:
        endpoint = Endpoint(
            f"https://127.0.0.1:{port}", str(files["ca.crt"]), str(files["client.crt"]), str(files["client.key"])
        )
        async with AsyncKube(endpoint) as kube:
            assert (await kube.get(PODS))["peer"] == "client"

    run(work())
