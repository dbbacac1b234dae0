"""Pods against a fake API server and a fake runtime: what a user of kubectl relies on."""

from __future__ import annotations

from typing import Any

from cinderctl.core.diagnostics import CinderError
from tests.fakes.apiserver import pod
from tests.unit.wasmnode.conftest import OWNED, Lab, Run, state_of


def test_a_pod_runs_and_succeeds_and_running_is_always_seen_first(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        lab.runtime.exits["c"] = 0
        async with lab.agent():
            path = lab.api.add_pod(pod("hello"))
            done = await lab.phase(path, "Succeeded")
        phases = [v["status"]["phase"] for v in lab.api.versions_of(path)]
        assert list(dict.fromkeys(phases)) == ["Pending", "Running", "Succeeded"]
        shown = state_of(done)
        assert shown["state"]["terminated"]["reason"] == "Completed"
        assert shown["state"]["terminated"]["exitCode"] == 0
        assert shown["restartCount"] == 0
        assert shown["imageID"].startswith("registry.example/hello@sha256:")
        assert shown["containerID"].startswith("wasmtime://")
        status = done["status"]
        assert status["hostIP"] == "10.244.255.1"
        assert status["podIP"] == "10.244.1.1"
        assert status["qosClass"] == "BestEffort"
        by_type = {c["type"]: c for c in status["conditions"]}
        assert by_type["PodScheduled"]["status"] == "True"
        assert (by_type["Ready"]["status"], by_type["Ready"]["reason"]) == ("False", "PodCompleted")

    run_lab(body)


def test_a_running_pod_is_ready_with_two_requests_from_bound_to_running(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent() as agent:
            await agent.pods.synced.wait()
            await agent.runtime.ready.wait()
            path = lab.api.add_pod(pod("web"))
            found = await lab.phase(path, "Running")
            by_type = {c["type"]: c["status"] for c in found["status"]["conditions"]}
            assert by_type["Ready"] == by_type["ContainersReady"] == by_type["PodReadyToStartContainers"] == "True"
            assert state_of(found)["ready"]
            assert state_of(found)["started"]
            about = [r for r in lab.api.requests if "/pods/web" in r[1]]
            assert len(about) == 1, about

    run_lab(body)


def test_a_bare_pod_under_always_runs_once_as_krustlet_ran_it(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        lab.runtime.exits["c"] = 0
        async with lab.agent():
            await lab.phase(lab.api.add_pod(pod("bare", restartPolicy="Always")), "Succeeded")
        assert len(lab.runtime.started) == 1

    run_lab(body)


def test_a_bare_pod_under_always_restarts_where_the_node_says_so(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        lab.runtime.exits["c"] = 0
        async with lab.agent(restart_bare_pods=True):
            path = lab.api.add_pod(pod("bare", restartPolicy="Always"))
            await lab.api.until(lambda: state_of(lab.api.objects[path])["restartCount"] >= 2)

    run_lab(body)


def test_an_owned_pod_that_fails_is_restarted_with_a_pause_that_shows(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        lab.runtime.exits["c"] = 3
        async with lab.agent():
            path = lab.api.add_pod(pod("crash", restartPolicy="Always", ownerReferences=OWNED))
            waiting = await lab.api.until(
                lambda: (
                    lab.api.objects[path]
                    if state_of(lab.api.objects[path])["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
                    else None
                )
            )
            assert waiting["status"]["phase"] == "Running"
            assert state_of(waiting)["lastState"]["terminated"]["exitCode"] == 3
            assert state_of(waiting)["ready"] is False
            await lab.api.until(lambda: state_of(lab.api.objects[path])["restartCount"] >= 3)
            assert any(e["reason"] == "BackOff" for e in lab.api.events_of("crash"))

    run_lab(body)


def test_init_containers_run_in_order_before_the_others(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        lab.runtime.exits.update(one=0, two=0)
        spec = {"image": "registry.example/hello:v1"}
        async with lab.agent():
            path = lab.api.add_pod(pod("p", initContainers=[{"name": "one", **spec}, {"name": "two", **spec}]))
            found = await lab.phase(path, "Running")
        names = [run.split(".")[1] for run in lab.runtime.started]
        assert names == ["one", "two", "c"]
        init = {c["name"]: c for c in found["status"]["initContainerStatuses"]}
        assert init["one"]["ready"]
        assert init["one"]["state"]["terminated"]["reason"] == "Completed"

    run_lab(body)


def test_a_failing_init_container_fails_a_pod_that_never_restarts(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        lab.runtime.exits["one"] = 1
        async with lab.agent():
            path = lab.api.add_pod(pod("p", initContainers=[{"name": "one", "image": "registry.example/hello:v1"}]))
            failed = await lab.phase(path, "Failed")
        assert [run.split(".")[1] for run in lab.runtime.started] == ["one"]
        assert state_of(failed)["state"]["waiting"]

    run_lab(body)


def test_deletion_stops_the_containers_reports_them_and_lets_the_pod_go(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent() as agent:
            path = lab.api.add_pod(pod("p"))
            running = await lab.phase(path, "Running")
            uid = running["metadata"]["uid"]
            lab.api.ask_to_delete(path, 7)
            await lab.api.until(lambda: path not in lab.api.objects)
            await lab.api.until(lambda: not agent.pods.workers)
        assert lab.runtime.stopped == [(f"{uid}.c.0", 7.0)]
        last = lab.api.versions_of(path)[-1]
        assert state_of(last)["state"]["terminated"]["exitCode"] == 143
        assert not lab.runtime.states
        assert not (lab.config.pods_dir / uid).exists()
        deleted = [r[2] for r in lab.api.requests if r[0] == "DELETE"]
        assert deleted[0]["gracePeriodSeconds"] == 0
        assert deleted[0]["preconditions"] == {"uid": uid}

    run_lab(body)


def test_a_pod_removed_by_force_is_stopped_and_cleaned_up(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent() as agent:
            path = lab.api.add_pod(pod("p"))
            await lab.phase(path, "Running")
            lab.api.remove(path)
            await lab.api.until(lambda: not agent.pods.workers)
        assert lab.runtime.stopped
        assert not lab.runtime.states

    run_lab(body)


def test_a_finalizer_keeps_the_object_but_not_the_containers(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent() as agent:
            path = lab.api.add_pod(pod("p", finalizers=["batch.kubernetes.io/job-tracking"]))
            await lab.phase(path, "Running")
            lab.api.ask_to_delete(path, 1)
            await lab.phase(path, "Failed")
            lab.api.remove(path)
            await lab.api.until(lambda: not agent.pods.workers)

    run_lab(body)


def test_an_image_that_cannot_be_pulled_shows_the_cause_and_is_tried_again(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        lab.puller.images["registry.example/hello:v1"] = CinderError("connection refused by registry.example")
        async with lab.agent():
            path = lab.api.add_pod(pod("p"))

            def waiting(reason: str) -> dict[str, Any] | None:
                shown = state_of(lab.api.objects[path])["state"].get("waiting", {})
                return shown if shown.get("reason") == reason else None

            found = await lab.api.until(lambda: waiting("ErrImagePull"))
            assert "connection refused by registry.example" in found["message"]
            found = await lab.api.until(lambda: waiting("ImagePullBackOff"))
            assert "connection refused by registry.example" in found["message"]
            lab.puller.images["registry.example/hello:v1"] = b"\0asm"
            await lab.phase(path, "Running")
            reasons = [e["reason"] for e in lab.api.events_of("p")]
            assert {"Pulling", "Failed"} <= set(reasons)

    run_lab(body)


def test_a_missing_config_map_blocks_the_container_by_name_until_it_is_there(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}]
        async with lab.agent():
            path = lab.api.add_pod(
                pod("p", containers=[{"name": "c", "image": "registry.example/hello:v1", "env": env}])
            )

            def blocked() -> str | None:
                shown = state_of(lab.api.objects[path])["state"].get("waiting", {})
                return shown.get("message") if shown.get("reason") == "CreateContainerConfigError" else None

            assert await lab.api.until(blocked) == 'configmap "settings" not found'
            lab.api.add("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "settings"}, "data": {"a": "1"}})
            await lab.phase(path, "Running")
        (spec,) = lab.runtime.specs.values()
        assert spec.env == (("A", "1"),)
        assert spec.argv == ()

    run_lab(body)


def test_what_the_runtime_refuses_is_a_create_error_with_its_reason(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        lab.runtime.refuse["c"] = ("IsComponent", "the file is a component")
        async with lab.agent():
            path = lab.api.add_pod(pod("p"))

            def refused() -> str | None:
                shown = state_of(lab.api.objects[path])["state"].get("waiting", {})
                return shown.get("message") if shown.get("reason") == "CreateContainerError" else None

            assert await lab.api.until(refused) == "IsComponent: the file is a component"
        assert lab.api.objects[path]["status"]["phase"] == "Pending"

    run_lab(body)


def test_a_daemon_set_that_is_not_for_wasm_is_refused_once_and_quietly(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        owner = [{"kind": "DaemonSet", "name": "kube-proxy", "uid": "d", "apiVersion": "apps/v1", "controller": True}]
        async with lab.agent() as agent:
            path = lab.api.add_pod(pod("kube-proxy-1", ownerReferences=owner, restartPolicy="Always"))
            await lab.api.until(lambda: lab.api.objects[path]["status"].get("reason") == "UnsupportedWorkload")
            assert lab.api.objects[path]["status"]["phase"] == "Pending"
            await lab.api.until(lambda: lab.api.events_of("kube-proxy-1"))
            lab.api.ask_to_delete(path)
            await lab.api.until(lambda: not agent.pods.workers)
        assert [e["reason"] for e in lab.api.events_of("kube-proxy-1")] == ["UnsupportedWorkload"]
        assert not lab.runtime.started

    run_lab(body)


def test_a_node_without_a_runtime_fails_its_pods_with_the_reason(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent(arch="wasm32-wascc", runtime_socket=None):
            path = lab.api.add_pod(pod("actor"))
            failed = await lab.phase(path, "Failed")
            assert failed["status"]["reason"] == "RuntimeNotAvailable"
            assert "wasm32-wascc" in failed["status"]["message"]
            await lab.api.until(lambda: lab.api.events_of("actor"))

    run_lab(body)


def test_the_active_deadline_ends_a_pod(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent():
            path = lab.api.add_pod(pod("p", activeDeadlineSeconds=0.3))
            failed = await lab.phase(path, "Failed")
        assert failed["status"]["reason"] == "DeadlineExceeded"
        assert state_of(failed)["state"]["terminated"]["exitCode"] == 143

    run_lab(body)


def test_a_container_that_succeeds_after_restarts_is_completed(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        lab.runtime.exits["c"] = 1
        async with lab.agent():
            path = lab.api.add_pod(pod("p", restartPolicy="OnFailure"))
            await lab.api.until(lambda: state_of(lab.api.objects[path])["restartCount"] >= 2)
            lab.runtime.exits["c"] = 0
            done = await lab.phase(path, "Succeeded")
        assert state_of(done)["state"]["terminated"]["reason"] == "Completed"
        assert state_of(done)["lastState"]["terminated"]["exitCode"] == 1

    run_lab(body)


def test_a_crash_looping_pod_that_runs_out_of_time_shows_how_it_ended(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        lab.runtime.exits["c"] = 1
        async with lab.agent():
            path = lab.api.add_pod(pod("p", restartPolicy="OnFailure", activeDeadlineSeconds=0.3))
            failed = await lab.phase(path, "Failed")
        assert failed["status"]["reason"] == "DeadlineExceeded"
        assert state_of(failed)["state"]["terminated"]["exitCode"] == 1

    run_lab(body)


def test_two_containers_share_the_pod_and_its_fate(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        image = "registry.example/hello:v1"
        async with lab.agent():
            path = lab.api.add_pod(pod("p", containers=[{"name": "a", "image": image}, {"name": "b", "image": image}]))
            found = await lab.phase(path, "Running")
            uid = found["metadata"]["uid"]
            lab.runtime.finish(f"{uid}.a.0", 0)
            await lab.api.until(lambda: state_of(lab.api.objects[path], "a")["state"].get("terminated"))
            assert lab.api.objects[path]["status"]["phase"] == "Running"
            lab.runtime.finish(f"{uid}.b.0", 9)
            await lab.phase(path, "Failed")
        assert {spec.group for spec in lab.runtime.specs.values()} == {uid}
        assert lab.puller.pulls == [image]

    run_lab(body)


def test_isolation_is_chosen_by_annotation(run_lab: Run) -> None:
    async def body(lab: Lab) -> None:
        async with lab.agent():
            await lab.phase(lab.api.add_pod(pod("p", annotations={"cinder.crit.sh/isolation": "isolated"})), "Running")
        assert [spec.workload_class for spec in lab.runtime.specs.values()] == ["isolated"]

    run_lab(body)
