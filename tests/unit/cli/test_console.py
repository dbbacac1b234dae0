"""A run as people see it: recorded events in, text out."""

from __future__ import annotations

import io
import re
import threading

import pytest

from cinderctl.cli.console import Console, make_console
from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic
from cinderctl.engine.events import (
    RunFinished,
    RunStarted,
    StepDone,
    StepFailed,
    StepProgress,
    StepRetried,
    StepSkipped,
    StepStarted,
)
from cinderctl.plans.model import Action, Change, Mode, Plan

CA = Address("certificate", "ca")
ADMIN = Address("certificate", "admin")
PLANE = Address("control_plane", "cinder")
NODE = Address("wasm_node", "cinder-wasi")


class Terminal(io.StringIO):
    """`written` is set once, at the first write that has the awaited text."""

    def __init__(self, awaited: str = "") -> None:
        super().__init__()
        self.awaited = awaited
        self.written = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.awaited and self.awaited in text:
            self.written.set()
        return super().write(text)


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("CI", raising=False)


def plan(*changes: tuple[Address, Action], mode: Mode = Mode.APPLY) -> Plan:
    return Plan("cinder", mode, tuple(Change(address, action) for address, action in changes))


def steps(address: Address, action: Action, *phases: str, seconds: float = 0.25) -> list[StepStarted | StepDone]:
    """One whole change, going well."""
    events: list[StepStarted | StepDone] = []
    for phase in phases or (action.value,):
        events.append(StepStarted(0, address, phase, Change(address, action)))
        events.append(StepDone(0, address, phase, action, seconds))
    return events


def play(console: Console, *events: object, context: str = "") -> None:
    for event in events:
        console.emit(event)  # type: ignore[arg-type]
    console.close(context=context)


def failed(address: Address, action: Action, phase: str, why: str = "it broke", **more: bool) -> StepFailed:
    return StepFailed(0, address, phase, action, 1.5, (Diagnostic(why),), **more)


def steady(text: str) -> str:
    """Measured times of the run itself as `T`."""
    return re.sub(r"in \d+\.\d s\.", "in T s.", text)


def lines_of(terminal: Terminal) -> list[str]:
    """What stays on a terminal: moving lines that were cleared are gone, times read `T`."""
    kept = []
    for line in terminal.getvalue().split("\n"):
        shown = re.split(r"\r\033\[K", line)[-1]
        kept.append(re.sub(r"\d+\.\d s", "T s", shown))
    return kept


def test_plain_a_run_that_goes_well():
    stream = io.StringIO()
    play(
        make_console(stream, plan((CA, Action.CREATE), (PLANE, Action.CREATE))),
        RunStarted(0, "r", "cinder", "apply", 2),
        *steps(CA, Action.CREATE),
        StepStarted(0, PLANE, "create", Change(PLANE, Action.CREATE)),
        StepProgress(0, PLANE, "create", "waiting until etcd is ready"),
        StepDone(0, PLANE, "create", Action.CREATE, 2.345),
        RunFinished(0, "r", 3, 2, 0, 0, False),
        context="kubernetes-admin@cinder",
    )
    assert steady(stream.getvalue()) == (
        "  certificate.ca: created in 0.25 s\n"
        "  control_plane.cinder: created in 2.35 s\n"
        "Apply: 2 done in T s.\n"
        'Set kubectl context to "kubernetes-admin@cinder". Prithee, be careful.\n'
    )


def test_plain_a_run_that_fails_ends_with_a_table_of_what_became_of_each():
    stream = io.StringIO()
    play(
        make_console(stream, plan((CA, Action.CREATE), (PLANE, Action.UPDATE), (NODE, Action.CREATE))),
        *steps(CA, Action.CREATE),
        StepStarted(0, PLANE, "update", Change(PLANE, Action.UPDATE)),
        StepRetried(0, PLANE, "update", 1, 0.5, Diagnostic("the API server is busy")),
        failed(PLANE, Action.UPDATE, "update", "etcd does not stay up: exit 1"),
        StepSkipped(0, NODE, "create", Action.CREATE, PLANE, "control_plane.cinder failed"),
    )
    assert steady(stream.getvalue()) == (
        "  certificate.ca: created in 0.25 s\n"
        "  control_plane.cinder: the API server is busy; trying again in 0.5 s\n"
        "  control_plane.cinder: failed after 1.50 s\n"
        "\n"
        "RESOURCE                ACTION   RESULT    TIME     REASON\n"
        "certificate.ca          create   done      0.25 s\n"
        "control_plane.cinder    update   failed    1.50 s   etcd does not stay up: exit 1\n"
        "wasm_node.cinder-wasi   create   skipped            control_plane.cinder failed\n"
        "Apply: 1 done, 1 failed, 1 skipped in T s.\n"
    )


def test_plain_a_replacement_is_two_lines_and_one_row():
    stream = io.StringIO()
    play(
        make_console(stream, plan((CA, Action.REPLACE), (ADMIN, Action.CREATE))),
        *steps(CA, Action.REPLACE, "delete", "create"),
        failed(ADMIN, Action.CREATE, "create", interrupted=True),
    )
    assert steady(stream.getvalue()) == (
        "  certificate.ca: deleted in 0.25 s\n"
        "  certificate.ca: created in 0.25 s\n"
        "  certificate.admin: interrupted after 1.50 s\n"
        "\n"
        "RESOURCE            ACTION    RESULT        TIME     REASON\n"
        "certificate.ca      replace   done          0.50 s\n"
        "certificate.admin   create    interrupted   1.50 s   it broke\n"
        "Apply: 1 done, 1 interrupted in T s.\n"
    )


def test_plain_a_replacement_whose_deletion_failed_is_a_failure():
    stream = io.StringIO()
    play(
        make_console(stream, plan((CA, Action.REPLACE))),
        failed(CA, Action.REPLACE, "delete"),
        StepSkipped(0, CA, "create", Action.REPLACE, CA, "its deletion failed"),
    )
    assert "certificate.ca   replace   failed   1.50 s   it broke\n" in stream.getvalue()
    assert "Apply: 1 failed in" in stream.getvalue()


def test_plain_destroy_says_so():
    stream = io.StringIO()
    play(
        make_console(stream, plan((CA, Action.DELETE), mode=Mode.DESTROY)),
        *steps(CA, Action.DELETE, seconds=0.004),
    )
    assert steady(stream.getvalue()) == "  certificate.ca: deleted in 0.00 s\nDestroy: 1 done in T s.\n"


def test_plain_nothing_done():
    stream = io.StringIO()
    play(make_console(stream, plan()))
    assert steady(stream.getvalue()) == "Apply: nothing done in T s.\n"


def test_terminal_phases_end_once_when_the_last_of_them_is_done():
    stream = Terminal()
    play(
        make_console(stream, plan((CA, Action.CREATE), (ADMIN, Action.CREATE), (PLANE, Action.CREATE))),
        *steps(CA, Action.CREATE),
        *steps(ADMIN, Action.CREATE),
        *steps(PLANE, Action.CREATE),
        context="kubernetes-admin@cinder",
    )
    assert lines_of(stream) == [
        " 🔥  Generating certificates  T s",
        " 🔥  Creating control-plane node  T s",
        "Apply: 3 done in T s.",
        ' 🔥  Set kubectl context to "kubernetes-admin@cinder". Prithee, be careful.',
        "",
    ]


def test_terminal_a_replacement_ends_with_its_creation():
    stream = Terminal()
    console = make_console(stream, plan((CA, Action.REPLACE)))
    first, second = steps(CA, Action.REPLACE, "delete", "create")[:2], steps(CA, Action.REPLACE, "delete", "create")[2:]
    for event in first:
        console.emit(event)
    assert "Generating certificates  " not in stream.getvalue()
    play(console, *second)
    assert lines_of(stream)[0] == " 🔥  Generating certificates  T s"
    assert stream.getvalue().count("🔥") == 1


def test_terminal_a_failed_replacement_does_not_end_the_phase_of_others():
    stream = Terminal()
    console = make_console(stream, plan((CA, Action.REPLACE), (ADMIN, Action.CREATE)))
    console.emit(StepStarted(0, CA, "delete", Change(CA, Action.REPLACE)))
    console.emit(failed(CA, Action.REPLACE, "delete"))
    console.emit(StepSkipped(0, CA, "create", Action.REPLACE, CA, "its deletion failed"))
    assert "❌" not in stream.getvalue()
    play(console, *steps(ADMIN, Action.CREATE))
    assert lines_of(stream)[0] == " ❌  Generating certificates  T s"
    assert stream.getvalue().count("❌") == 1


def test_terminal_what_is_skipped_ends_its_phase_as_failed():
    stream = Terminal()
    play(
        make_console(stream, plan((PLANE, Action.CREATE), (NODE, Action.CREATE))),
        StepStarted(0, PLANE, "create", Change(PLANE, Action.CREATE)),
        failed(PLANE, Action.CREATE, "create"),
        StepSkipped(0, NODE, "create", Action.CREATE, PLANE, "control_plane.cinder failed"),
    )
    assert lines_of(stream)[:3] == [" ❌  Creating control-plane node  T s", " ❌  Starting wasm nodes  T s", ""]


def test_terminal_destroy_has_phases_of_its_own():
    stream = Terminal()
    play(
        make_console(stream, plan((NODE, Action.DELETE), (CA, Action.DELETE), mode=Mode.DESTROY)),
        *steps(NODE, Action.DELETE),
        *steps(CA, Action.DELETE),
    )
    assert lines_of(stream) == [
        " 🔥  Stopping wasm nodes  T s",
        " 🔥  Removing certificates  T s",
        "Destroy: 2 done in T s.",
        "",
    ]


def test_terminal_one_moving_line_shows_what_goes_on_and_is_cleared():
    stream = Terminal(awaited="etcd is ready")
    console = make_console(stream, plan((PLANE, Action.CREATE)))
    console.emit(StepStarted(0, PLANE, "create", Change(PLANE, Action.CREATE)))
    console.emit(StepProgress(0, PLANE, "create", "waiting until etcd is ready"))
    assert stream.written.wait(5)
    console.emit(StepRetried(0, PLANE, "create", 1, 0.5, Diagnostic("busy")))
    play(console, StepDone(0, PLANE, "create", Action.CREATE, 1))
    assert re.search(r"\r\033\[K .  Creating control-plane node: waiting until etcd is ready", stream.getvalue())
    assert lines_of(stream) == [
        "  control_plane.cinder: busy; trying again in T s",
        " 🔥  Creating control-plane node  T s",
        "Apply: 1 done in T s.",
        "",
    ]


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "true"}])
def test_where_nothing_should_move_a_terminal_gets_plain_lines(environment, monkeypatch):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    stream = Terminal()
    play(make_console(stream, plan((CA, Action.CREATE))), *steps(CA, Action.CREATE))
    assert steady(stream.getvalue()) == "  certificate.ca: created in 0.25 s\nApply: 1 done in T s.\n"
