"""A supervisor and its components as real processes: order, restarts, take-over, and every way to die."""

from __future__ import annotations

import os
import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.components import Component, ComponentStatus, Probe, save_status
from cinderctl.host.control import (
    acknowledge,
    put_components,
    read_components,
    read_status,
    remove_components,
    restart_component,
    stop_supervisor,
    supervisor_alive,
)
from cinderctl.host.dirs import ClusterDir
from cinderctl.host.files import tail
from cinderctl.host.identity import Identity, is_alive
from cinderctl.host.process import terminate
from tests.unit.host.conftest import Supervised, sleeper, until


def kill_supervisor(cluster: Supervised) -> None:
    identity = cluster.supervisor()
    os.kill(identity.pid, signal.SIGKILL)
    until(lambda: not is_alive(identity))


def test_components_start_in_order_and_become_ready(cluster: Supervised) -> None:
    order = cluster.directory.root / "order"
    up = cluster.directory.root / "up"
    cluster.put(
        sleeper("scheduler", f"echo scheduler >> {order}", after=("apiserver",)),
        sleeper("apiserver", f"echo apiserver >> {order}", after=("etcd",)),
        sleeper("etcd", f"sleep 0.05; echo etcd >> {order}; touch {up}", probe=Probe("file", str(up))),
    )
    cluster.wait("scheduler")
    until(lambda: len(order.read_text().split()) == 3)
    assert order.read_text().split() == ["etcd", "apiserver", "scheduler"]
    assert {status.state for status in read_status(cluster.directory).values()} == {"ready"}


def test_a_changed_definition_restarts_only_that_component(cluster: Supervised) -> None:
    one, two = sleeper("one"), sleeper("two", after=("one",))
    cluster.put(one, two)
    before = cluster.pid("one"), cluster.pid("two")
    cluster.put(one, two)
    assert (cluster.pid("one"), cluster.pid("two")) == before
    changed = replace(one, env={**one.env, "FLAG": "1"})
    cluster.put(changed)
    assert cluster.status("one").digest == changed.digest
    assert cluster.pid("one") != before[0]
    assert cluster.pid("two") == before[1]
    assert cluster.status("one").unexpected_exits == 0
    assert read_components(cluster.directory) == {"one": changed, "two": two}


def test_a_killed_component_comes_back_and_is_counted(cluster: Supervised) -> None:
    cluster.put(sleeper("one"))
    pid = cluster.pid("one")
    os.kill(pid, signal.SIGKILL)
    until(lambda: cluster.status("one").unexpected_exits == 1)
    assert cluster.pid("one") != pid
    status = cluster.status("one")
    assert (status.restarts, status.last_exit) == (1, "signal 9")
    acknowledge(cluster.directory, "one")
    assert cluster.status("one").unexpected_exits == 0


def test_one_that_does_not_stay_up_is_tried_less_and_less(cluster: Supervised) -> None:
    cluster.put(sleeper("one", "echo no such flag >&2; exit 7"))
    until(lambda: cluster.status("one").restarts >= 3)
    status = cluster.wait("one", "backoff")
    assert status.last_exit == "exit 7"
    assert "no such flag" in tail(cluster.directory.log("one"))
    cluster.put(sleeper("one"))
    assert cluster.wait("one").restarts == 0


def test_after_a_settled_run_the_first_restart_is_at_once(idle: Supervised) -> None:
    idle.settled = 0.0
    idle.start()
    idle.put(sleeper("one", "sleep 0.01; exit 1"))
    until(lambda: idle.status("one").restarts > 5)


def test_put_tries_a_waiting_component_again_at_once(idle: Supervised) -> None:
    program = idle.directory.root / "program"
    component = Component("one", argv=(str(program),), env={"PATH": os.environ["PATH"]})
    idle.start()
    idle.put(component)
    assert "no such program" in idle.wait("one", "failed").error
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o700)
    idle.put(component)
    idle.wait("one")


def test_a_late_component_is_failed_but_heals(cluster: Supervised) -> None:
    up = cluster.directory.root / "up"
    cluster.put(sleeper("one", probe=Probe("file", str(up), timeout=0.1)))
    assert "not ready after 0.1 s" in cluster.wait("one", "failed").error
    up.touch()
    assert cluster.wait("one").error == ""


def test_removing_stops_and_forgets(cluster: Supervised) -> None:
    cluster.put(sleeper("one"), sleeper("two"))
    identity = cluster.wait("one").identity
    assert identity is not None
    remove_components(cluster.directory, ["one", "never-there"])
    assert not is_alive(identity)
    assert set(read_status(cluster.directory)) == {"two"}
    assert set(read_components(cluster.directory)) == {"two"}
    assert not (cluster.directory.run / "one.json").exists()
    remove_components(cluster.directory, ["one"])


def ending(name: str, order: Path, **options: object) -> Component:
    script = (
        f"trap 'sleep 0.05; echo {name} >> {order}; exit 0' TERM; touch {order}.{name}; while :; do sleep 0.01; done"
    )
    return sleeper(name, script, probe=Probe("file", f"{order}.{name}"), **options)


@pytest.mark.parametrize("way", ["stop", "remove", "dead supervisor"])
def test_components_end_before_what_they_stand_on(cluster: Supervised, way: str) -> None:
    order = cluster.directory.root / "order"
    cluster.put(
        ending("etcd", order),
        ending("apiserver", order, after=("etcd",)),
        ending("scheduler", order, after=("apiserver",)),
    )
    cluster.wait("scheduler")
    if way == "remove":
        remove_components(cluster.directory, ["etcd", "apiserver", "scheduler"])
    else:
        if way == "dead supervisor":
            kill_supervisor(cluster)
        stop_supervisor(cluster.directory, stop_components=True)
        assert not supervisor_alive(cluster.directory)
    assert order.read_text().split() == ["scheduler", "apiserver", "etcd"]


def test_a_stopped_directory_starts_again_as_it_was(cluster: Supervised) -> None:
    cluster.put(sleeper("one"), Component("task", task="write", config={"word": "hello"}))
    first = cluster.pid("one")
    cluster.wait("task")
    stop_supervisor(cluster.directory, stop_components=True)
    stop_supervisor(cluster.directory, stop_components=True)
    assert {status.state for status in read_status(cluster.directory).values()} == {"stopped"}
    assert not (cluster.directory.root / "written").exists()
    with pytest.raises(CinderError, match="no supervisor runs"):
        restart_component(cluster.directory, "one")
    cluster.start()
    assert cluster.pid("one") != first
    assert cluster.wait("task").unexpected_exits == 0
    assert cluster.status("one").unexpected_exits == 0


def test_a_death_that_nobody_saw_counts_the_same_before_and_after_the_supervisor_is_back(cluster: Supervised) -> None:
    """What a plan saw of a dead cluster still holds when its first step has started the supervisor again."""
    cluster.put(sleeper("one"))
    pid = cluster.pid("one")
    kill_supervisor(cluster)
    os.kill(pid, signal.SIGKILL)
    until(lambda: read_status(cluster.directory)["one"].state == "stopped")
    assert read_status(cluster.directory)["one"].unexpected_exits == 1
    cluster.start()
    assert cluster.wait("one").unexpected_exits == 1


def test_grace_bounds_the_stop(cluster: Supervised) -> None:
    cluster.put(sleeper("one", "trap '' TERM; echo up; while :; do sleep 0.05; done"))
    until(lambda: "up" in tail(cluster.directory.log("one")))
    identity = cluster.wait("one").identity
    remove_components(cluster.directory, ["one"], grace=0.05)
    assert identity is not None
    assert not is_alive(identity)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_components_outlive_the_supervisor_and_are_taken_over(cluster: Supervised, number: signal.Signals) -> None:
    cluster.put(sleeper("one"), sleeper("two"), Component("task", task="write", config={"word": "a"}))
    one, two = cluster.pid("one"), cluster.pid("two")
    cluster.wait("task")
    supervisor = cluster.supervisor()
    os.kill(supervisor.pid, number)
    until(lambda: not is_alive(supervisor))
    assert not supervisor_alive(cluster.directory)
    assert (cluster.status("one").state, cluster.status("task").state) == ("ready", "stopped")
    changed = sleeper("two", "true")
    put_components(cluster.directory, [changed])
    cluster.start()
    assert cluster.pid("one") == one
    assert cluster.pid("two") != two
    assert cluster.wait("task").state == "ready"
    os.kill(one, signal.SIGKILL)  # the new supervisor watches what is not its child
    until(lambda: cluster.status("one").unexpected_exits == 1)
    assert cluster.pid("one") != one
    assert cluster.supervisor() != supervisor


def test_what_died_unwatched_is_started_and_counted(cluster: Supervised) -> None:
    cluster.put(sleeper("one"), sleeper("gone"))
    identity = cluster.wait("one").identity
    gone = cluster.wait("gone").identity
    kill_supervisor(cluster)
    assert identity is not None
    assert gone is not None
    terminate(identity, grace=0)
    assert cluster.status("one").state == "stopped"
    remove_components(cluster.directory, ["gone"])
    assert not is_alive(gone)
    cluster.start()
    assert cluster.wait("one").unexpected_exits == 1
    assert set(read_status(cluster.directory)) == {"one"}


def test_after_a_reboot_everything_starts_and_nothing_is_blamed(cluster: Supervised) -> None:
    cluster.put(sleeper("one"))
    stop_supervisor(cluster.directory, stop_components=True)
    stranger = Identity(os.getpid(), 1.0, "sha256:0", "an earlier boot")
    save_status(cluster.directory, ComponentStatus("one", "ready", stranger, digest=sleeper("one").digest))
    assert cluster.status("one").state == "stopped"
    cluster.start()
    assert cluster.wait("one").unexpected_exits == 0


def test_a_reused_pid_is_not_taken_over(cluster: Supervised, tmp_path: Path) -> None:
    component = sleeper("one")
    cluster.put(component)
    identity = cluster.wait("one").identity
    stop_supervisor(cluster.directory, stop_components=True)
    assert identity is not None
    other = cluster.directory.root
    forged = replace(identity, pid=os.getpid())
    save_status(cluster.directory, ComponentStatus("one", "ready", forged, digest=component.digest))
    cluster.start()
    assert cluster.pid("one") != os.getpid()
    assert other.exists()  # and we are still here to see it


@pytest.mark.parametrize("damage", [b'{"name": "one", "state": "sleeping"}', None])
def test_a_lost_or_damaged_status_makes_no_second_process(cluster: Supervised, damage: bytes | None) -> None:
    pids = cluster.directory.root / "pids"
    component = sleeper("one", f"echo $$ >> {pids}")
    cluster.put(component)
    first = cluster.wait("one").identity
    until(pids.exists)
    kill_supervisor(cluster)
    path = cluster.directory.run / "one.json"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    assert cluster.status("one").state == "running"
    cluster.start()
    second = cluster.wait("one").identity
    assert first is not None
    assert second is not None
    until(lambda: len(pids.read_text().split()) == 2)
    assert is_alive(second)
    assert not is_alive(first)


def test_a_process_nobody_defines_any_more_is_ended_by_the_next_supervisor(cluster: Supervised) -> None:
    cluster.put(sleeper("one"))
    identity = cluster.wait("one").identity
    kill_supervisor(cluster)
    (cluster.directory.components / "one.json").unlink()
    cluster.start()
    assert identity is not None
    until(lambda: not is_alive(identity))
    until(lambda: not read_status(cluster.directory))


def test_a_damaged_definition_does_not_stop_what_runs(cluster: Supervised) -> None:
    component = sleeper("one")
    cluster.put(component, sleeper("two"))
    pid = cluster.pid("one")
    (cluster.directory.components / "one.json").write_bytes(b"{")
    cluster.put(sleeper("two", "true"))
    assert cluster.pid("one") == pid
    assert set(read_components(cluster.directory)) == {"two"}
    cluster.put(component)
    assert cluster.pid("one") == pid


def test_two_runs_at_once_start_one_supervisor(idle: Supervised) -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            idle.start()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    supervisor = idle.supervisor()
    idle.start()
    assert idle.supervisor() == supervisor


def test_a_second_supervisor_gives_way(cluster: Supervised) -> None:
    first = cluster.supervisor()
    (cluster.directory.run / "supervisor.json").unlink()
    (cluster.directory.run / "supervisor.sock").rename(cluster.directory.run / "hidden.sock")
    with pytest.raises(CinderError, match="the supervisor does not start") as caught:
        cluster.start()
    assert "another supervisor runs" in caught.value.diagnostics[0].detail
    (cluster.directory.run / "hidden.sock").rename(cluster.directory.run / "supervisor.sock")
    assert is_alive(first)
    cluster.start()


def test_tasks_run_inside_with_a_log_of_their_own(cluster: Supervised) -> None:
    written = cluster.directory.root / "written"
    cluster.put(
        Component("good", task="write", config={"word": "hello"}, probe=Probe("file", str(written))),
        Component("bad", task="fail"),
        Component("unknown", task="nothing"),
    )
    assert cluster.wait("good").identity is None
    assert written.read_text() == "hello"
    assert any("wrote hello" in line for line in tail(cluster.directory.log("good")))
    until(lambda: cluster.status("bad").unexpected_exits >= 2)
    assert cluster.status("bad").last_exit == "error: no luck"
    assert any("RuntimeError: no luck" in line for line in tail(cluster.directory.log("bad")))
    assert "there is no task 'nothing'" in cluster.wait("unknown", "failed").error
    remove_components(cluster.directory, ["good", "bad", "unknown"])
    assert not written.exists()


def test_restart_on_request_is_no_unexpected_exit(cluster: Supervised) -> None:
    cluster.put(sleeper("one"))
    first = cluster.pid("one")
    restart_component(cluster.directory, "one")
    assert cluster.status("one").state != "ready" or cluster.pid("one") != first
    assert cluster.pid("one") != first
    assert cluster.status("one").unexpected_exits == 0
    with pytest.raises(CinderError, match="there is no component 'two'"):
        restart_component(cluster.directory, "two")


@pytest.mark.parametrize(
    "components",
    [
        [Component("a/b", argv=("true",))],
        [Component("supervisor", argv=("true",))],
        [Component("a")],
        [Component("a", argv=("true",), task="t")],
        [sleeper("a", after=("b",)), sleeper("b", after=("a",))],
    ],
)
def test_impossible_definitions_are_refused(idle: Supervised, components: list[Component]) -> None:
    with pytest.raises(CinderError):
        put_components(idle.directory, components)
    assert read_components(idle.directory) == {}


def test_the_socket_is_private_and_survives_nonsense(cluster: Supervised) -> None:
    path = cluster.directory.run / "supervisor.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    for line in (b"\n", b"null\n", b"[]\n", b'{"op": "x"}\n', b'{"op": "restart"}\n', b'{"op": []}\n'):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(line)
            assert b'"ok": false' in client.makefile("rb").readline()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"x" * 200_000)
    cluster.put(sleeper("one"))
    cluster.wait("one")


def test_a_deep_directory_is_no_obstacle(tmp_path: Path) -> None:
    deep = Supervised(ClusterDir(tmp_path / ("d" * 90) / ("e" * 90)))
    try:
        deep.start()
        deep.put(sleeper("one"))
        deep.wait("one")
    finally:
        stop_supervisor(deep.directory, stop_components=True)
    assert not supervisor_alive(deep.directory)


def test_a_supervisor_whose_directory_vanished_ends_with_its_components(cluster: Supervised) -> None:
    cluster.put(sleeper("one"))
    identity, supervisor = cluster.wait("one").identity, cluster.supervisor()
    assert identity is not None
    cluster.directory.root.rename(cluster.directory.root.with_name("moved"))
    until(lambda: not is_alive(supervisor))
    assert not is_alive(identity)


def test_a_hung_supervisor_is_killed_by_stop(cluster: Supervised) -> None:
    cluster.put(sleeper("one"))
    identity, supervisor = cluster.wait("one").identity, cluster.supervisor()
    os.kill(supervisor.pid, signal.SIGSTOP)
    os.kill(supervisor.pid, signal.SIGKILL)
    until(lambda: not is_alive(supervisor))
    stop_supervisor(cluster.directory, stop_components=True)
    assert identity is not None
    assert not is_alive(identity)


def test_an_unused_supervisor_only(cluster: Supervised) -> None:
    cluster.put(sleeper("one"))
    stop_supervisor(cluster.directory, stop_components=True, only_unused=True)
    assert supervisor_alive(cluster.directory)
    remove_components(cluster.directory, ["one"])
    stop_supervisor(cluster.directory, stop_components=True, only_unused=True)
    assert not supervisor_alive(cluster.directory)


def test_a_bare_supervisor_is_small(cluster: Supervised) -> None:
    cluster.put(sleeper("one"))
    cluster.wait("one")
    status = Path(f"/proc/{cluster.supervisor().pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0])
    assert resident < 32 * 1024, f"{resident} KiB"
