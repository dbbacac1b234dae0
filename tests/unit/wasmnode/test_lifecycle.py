"""What follows from container states: the tables of init containers, sidecars, restart policies, phases and pauses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cinderctl.wasmnode.config import Timing
from cinderctl.wasmnode.lifecycle import ContainerState, Ended, decide, ended, phase_of, restarts
from cinderctl.wasmnode.podspec import ContainerShape, PodShape

TIMING = Timing()
RUNNING = ContainerState(phase="running", reason="")
WAITING = ContainerState()


def over(code: int = 0, *, lost: bool = False, not_before: float = 0) -> ContainerState:
    return ContainerState(
        phase="ended", reason="", ended=Ended(code, "x", started_at=1.0, lost=lost), not_before=not_before
    )


def shape(policy: Any = "Always", *, init: str = "", main: str = "a", once: bool = False) -> PodShape:
    """Containers by letter; an upper-case init container is a sidecar."""
    inits = tuple(ContainerShape(n.lower(), init=True, sidecar=n.isupper()) for n in init)
    return PodShape(inits, tuple(ContainerShape(n) for n in main), policy, once)


@pytest.mark.parametrize(
    ("policy", "once", "code", "lost", "again"),
    [
        ("Always", False, 0, False, True),
        ("Always", False, 1, False, True),
        ("OnFailure", False, 0, False, False),
        ("OnFailure", False, 1, False, True),
        ("OnFailure", False, 137, True, True),
        ("Never", False, 1, False, False),
        ("Never", False, 137, True, False),
        ("Always", True, 0, False, False),
        ("Always", True, 3, False, False),
        ("Always", True, 137, True, True),
    ],
)
def test_the_restart_policy_decides_by_how_a_container_ended(
    policy: str, once: bool, code: int, lost: bool, again: bool
) -> None:
    pod = shape(policy, once=once)
    assert restarts(pod, pod.main[0], Ended(code, "x", lost=lost)) is again


@pytest.mark.parametrize(
    ("pod", "states", "phase", "start", "stop", "done"),
    [
        (shape(), {"a": WAITING}, "Pending", ("a",), (), False),
        (shape(), {"a": RUNNING}, "Running", (), (), False),
        (shape(), {"a": over(1)}, "Running", ("a",), (), False),
        (shape("Never"), {"a": over(0)}, "Succeeded", (), (), True),
        (shape("Never"), {"a": over(1)}, "Failed", (), (), True),
        (shape("Never"), {"a": over(137, lost=True)}, "Failed", (), (), True),
        (shape("OnFailure"), {"a": over(0)}, "Succeeded", (), (), True),
        (shape(once=True), {"a": over(0)}, "Succeeded", (), (), True),
        (shape("Never", main="ab"), {"a": over(0), "b": RUNNING}, "Running", (), (), False),
        (shape("Never", main="ab"), {"a": RUNNING, "b": WAITING}, "Pending", ("b",), (), False),
        (shape("Never", init="ij"), {"i": WAITING, "j": WAITING, "a": WAITING}, "Pending", ("i",), (), False),
        (shape("Never", init="ij"), {"i": RUNNING, "j": WAITING, "a": WAITING}, "Pending", (), (), False),
        (shape("Never", init="ij"), {"i": over(0), "j": WAITING, "a": WAITING}, "Pending", ("j",), (), False),
        (shape("Never", init="ij"), {"i": over(0), "j": over(0), "a": WAITING}, "Pending", ("a",), (), False),
        (shape("Never", init="i"), {"i": over(1), "a": WAITING}, "Failed", (), (), True),
        (shape("Always", init="i"), {"i": over(1), "a": WAITING}, "Pending", ("i",), (), False),
        (shape("Never", init="S"), {"s": WAITING, "a": WAITING}, "Pending", ("s",), (), False),
        (shape("Never", init="S"), {"s": RUNNING, "a": WAITING}, "Pending", ("a",), (), False),
        (shape("Never", init="S"), {"s": RUNNING, "a": over(0)}, "Running", (), ("s",), False),
        (shape("Never", init="S"), {"s": over(143), "a": over(0)}, "Succeeded", (), (), True),
        (shape("Never", init="S"), {"s": over(1), "a": RUNNING}, "Running", ("s",), (), False),
    ],
)
def test_what_is_due(  # noqa: PLR0917 - a table's columns
    pod: PodShape,
    states: dict[str, ContainerState],
    phase: str,
    start: tuple[str, ...],
    stop: tuple[str, ...],
    done: bool,
) -> None:
    decision = decide(pod, states, now=100)
    assert (decision.phase, decision.start, decision.stop, decision.done) == (phase, start, stop, done)


def test_a_pause_delays_the_start_and_says_until_when() -> None:
    decision = decide(shape(), {"a": over(1, not_before=130)}, now=100)
    assert decision.start == ()
    assert decision.wake_at == 130
    assert decide(shape(), {"a": over(1, not_before=130)}, now=130).start == ("a",)


def test_an_ending_pod_stops_in_reverse_and_starts_nothing() -> None:
    states = {"s": RUNNING, "a": RUNNING, "b": WAITING}
    decision = decide(shape("Always", init="S", main="ab"), states, now=0, ending=True)
    assert (decision.start, decision.stop, decision.done) == ((), ("a", "s"), False)
    gone = {"s": over(143), "a": over(143), "b": WAITING}
    assert decide(shape("Always", init="S", main="ab"), gone, now=0, ending=True).done


def test_the_first_restart_is_immediate_then_pauses_double_to_their_bound() -> None:
    state, pauses = RUNNING, []
    for _ in range(8):
        how = Ended(1, "Error", started_at=1000.0, finished_at=1001.0)
        state = ended(state, how, TIMING, pod="a")
        pauses.append(state.not_before - 1001.0)
        state = replace(state, phase="running")
    assert pauses == [0, 10, 20, 40, 80, 160, 300, 300]


def test_a_pause_shows_as_crash_loop_back_off_with_its_length() -> None:
    state = ended(replace(RUNNING, backoff=80), Ended(1, "Error", finished_at=5), TIMING, pod="a pod=p")
    assert state.reason == "CrashLoopBackOff"
    assert state.message == "back-off 1m20s restarting failed container=a pod=p"


def test_ten_minutes_of_running_forget_the_past() -> None:
    how = Ended(1, "Error", started_at=0.0, finished_at=600.0)
    assert ended(replace(RUNNING, backoff=300), how, TIMING, pod="a").not_before == 600


def test_a_pod_whose_init_containers_run_is_pending() -> None:
    assert phase_of(shape(init="i"), {"i": RUNNING, "a": WAITING}) == "Pending"
