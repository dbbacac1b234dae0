"""The agent killed, the runtime killed, the API away: nothing finished runs again, nothing running is lost sight of."""

from __future__ import annotations

import asyncio

from tests.fakes.apiserver import pod
from tests.unit.wasmnode.conftest import OWNED, Lab, Run, state_of


def test_a_running_pod_goes_on_under_a_new_agent(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent():
            path = lab.api.add_pod(pod("p"))
            uid = (await lab.phase(path, "Running"))["metadata"]["uid"]
        before = len(lab.api.versions_of(path))
        async with lab.agent() as agent:
            await agent.pods.synced.wait()
            await lab.api.until(lambda: agent.pods.workers[uid].phase == "Running")
            assert len(lab.api.versions_of(path)) == before  # nothing new to say
            lab.runtime.finish(f"{uid}.c.0", 5)
            done = await lab.phase(path, "Failed")
        assert len(lab.runtime.started) == 1
        assert state_of(done)["state"]["terminated"]["exitCode"] == 5
        assert state_of(done)["imageID"]

    run_lab(body)


def test_a_pod_that_finished_while_no_agent_was_there_is_reported_and_not_run_again(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent():
            path = lab.api.add_pod(pod("p"))
            uid = (await lab.phase(path, "Running"))["metadata"]["uid"]
        lab.runtime.finish(f"{uid}.c.0", 0)
        async with lab.agent():
            await lab.phase(path, "Succeeded")
        async with lab.agent() as agent:
            await agent.pods.synced.wait()
            await asyncio.sleep(0.05)
        assert len(lab.runtime.started) == 1

    run_lab(body)


def test_an_outcome_on_disk_survives_an_agent_that_could_not_report_it(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        lab.api.broken = lambda method, path: 503 if method == "PATCH" and path.endswith("/status") else None
        lab.runtime.exits["c"] = 4
        async with lab.agent():
            path = lab.api.add_pod(pod("p"))
            uid = lab.api.objects[path]["metadata"]["uid"]
            await lab.api.until(lambda: lab.runtime.forgotten == [f"{uid}.c.0"])
        assert lab.api.objects[path]["status"]["phase"] == "Pending"
        lab.api.broken = lambda method, path: None
        async with lab.agent():
            done = await lab.phase(path, "Failed")
        assert state_of(done)["state"]["terminated"]["exitCode"] == 4
        assert len(lab.runtime.started) == 1
        phases = [v["status"]["phase"] for v in lab.api.versions_of(path)]
        assert "Running" in phases  # seen even by those who were not told in time

    run_lab(body)


def test_a_run_that_is_lost_fails_a_pod_that_never_restarts_with_137(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent():
            path = lab.api.add_pod(pod("p"))
            await lab.phase(path, "Running")
            lab.runtime.die()
            failed = await lab.phase(path, "Failed")
        assert state_of(failed)["state"]["terminated"]["exitCode"] == 137
        assert state_of(failed)["state"]["terminated"]["reason"] == "RuntimeDied"

    run_lab(body)


def test_a_run_that_is_lost_is_restarted_by_policy(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent():
            path = lab.api.add_pod(pod("p", restartPolicy="Always", ownerReferences=OWNED))
            uid = (await lab.phase(path, "Running"))["metadata"]["uid"]
            lab.runtime.lose(f"{uid}.c.0")
            await lab.api.until(lambda: state_of(lab.api.objects[path])["restartCount"] == 1)
            assert state_of(lab.api.objects[path])["lastState"]["terminated"]["exitCode"] == 137

    run_lab(body)


def test_a_runtime_that_forgot_everything_means_lost(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent():
            path = lab.api.add_pod(pod("p"))
            await lab.phase(path, "Running")
        lab.runtime.states.clear()
        async with lab.agent():
            failed = await lab.phase(path, "Failed")
        assert state_of(failed)["state"]["terminated"]["reason"] == "ContainerStatusUnknown"

    run_lab(body)


def test_pods_deleted_meanwhile_are_stopped_and_cleaned_up(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent():
            path = lab.api.add_pod(pod("p"))
            uid = (await lab.phase(path, "Running"))["metadata"]["uid"]
        lab.api.remove(path)
        async with lab.agent():
            await lab.api.until(lambda: not lab.runtime.states and not (lab.config.pods_dir / uid).exists())
        assert lab.runtime.stopped == [(f"{uid}.c.0", 1.0)]

    run_lab(body)


def test_a_finished_pod_the_agent_knows_nothing_of_stays_finished(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        path = lab.api.add_pod(pod("p", status={"phase": "Succeeded", "message": "by another"}))
        async with lab.agent() as agent:
            await agent.pods.synced.wait()
            await asyncio.sleep(0.05)
            lab.api.ask_to_delete(path)
            await lab.api.until(lambda: path not in lab.api.objects)
        assert not lab.runtime.started

    run_lab(body)


def test_the_api_away_leaves_pods_running_and_statuses_arrive_later_in_order(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent():
            path = lab.api.add_pod(pod("p"))
            uid = (await lab.phase(path, "Running"))["metadata"]["uid"]
            lab.api.broken = lambda method, path: 503
            await lab.api.drop_watches()
            lab.runtime.finish(f"{uid}.c.0", 0)
            await asyncio.sleep(0.1)
            lab.api.broken = lambda method, path: None
            await lab.phase(path, "Succeeded")

    run_lab(body)


def test_a_watch_that_is_too_old_lists_again(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent() as agent:
            await agent.pods.synced.wait()
            first = lab.api.add_pod(pod("one"))
            await lab.phase(first, "Running")
            lab.api.broken = lambda method, path: 503 if path.endswith("/pods") else None
            await lab.api.drop_watches()
            second = lab.api.add_pod(pod("two"))
            lab.api.remove(first)
            lab.api.forget_history()
            lab.api.broken = lambda method, path: None
            await lab.phase(second, "Running")
            await lab.api.until(lambda: len(agent.pods.workers) == 1)

    run_lab(body)


def test_a_restarted_agent_does_not_call_its_node_not_ready(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        node = "/api/v1/nodes/node-wasi"
        for _ in range(2):
            async with lab.agent() as agent:
                await agent.registration.registered.wait()
        shown = [v["status"] for v in lab.api.versions_of(node) if v.get("status")]
        ready = [c["status"] for status in shown for c in status["conditions"] if c["type"] == "Ready"]
        assert set(ready) == {"True"}

    run_lab(body)


def test_the_runtime_away_makes_the_node_not_ready_until_it_is_back(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        node = "/api/v1/nodes/node-wasi"

        def ready() -> str:
            return next(c["status"] for c in lab.api.objects[node]["status"]["conditions"] if c["type"] == "Ready")

        async with lab.agent():
            await lab.api.until(lambda: ready() == "True")
            lab.runtime.away = True
            lab.runtime.die()
            await lab.api.until(lambda: ready() == "False")
            lab.runtime.away = False
            await lab.api.until(lambda: ready() == "True")

    run_lab(body)
