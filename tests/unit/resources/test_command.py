"""Commands of the spec: run in order, their output kept, and again only when there is a reason."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError, InterruptedRunError
from cinderctl.host.records import write_record
from cinderctl.resources.command import CommandInputs, CommandKind
from tests.fakes.step import FakeStep

from .conftest import Life, everything_below

WANT = CommandInputs(commands=("echo one", "echo two >&2"), trigger="https://127.0.0.1:6443", path="/opt/kubernetes")


@pytest.fixture
def post(context):
    return Life(CommandKind(context), Address("command", "post"))


@pytest.fixture
def log(context) -> Path:
    return context.cluster.log("command-post")


def test_a_life(post, log, context):
    assert not post.exists()
    post.create(WANT)
    assert log.read_text() == "one\ntwo\n"
    assert post.changed(WANT) == []
    assert post.discovered() == [post.address]
    post.delete()
    assert not post.exists()
    assert everything_below(context.cluster.records) == []


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"commands": ("echo other",)}, "commands"),
        ({"trigger": "https://127.0.0.1:7443"}, "trigger"),
    ],
)
def test_they_run_again_when_they_or_the_control_plane_change(changed, path, post, log):
    post.create(WANT)
    log.write_text("")
    want = replace(WANT, **changed)
    assert post.changed(want) == [path]
    post.update(want)
    assert log.read_text() == ("other\n" if path == "commands" else "one\ntwo\n")
    assert post.changed(want) == []


def test_they_have_the_clusters_environment_and_directory(post, log, context):
    post.create(replace(WANT, commands=('echo "$KUBECONFIG"', 'echo "$PATH"', "pwd")))
    assert log.read_text().splitlines() == [
        str(context.cluster.kubeconfigs / "admin.conf"),
        f"/opt/kubernetes{os.pathsep}/usr/bin:/bin",
        str(context.cluster.files),
    ]


def test_nothing_of_the_callers_environment_slips_in(post, log, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    post.create(replace(WANT, commands=("env",)))
    assert "hunter2" not in log.read_text()


def test_nobody_answers_questions(post, log):
    post.create(replace(WANT, commands=("read answer || echo nobody",)))
    assert log.read_text() == "nobody\n"


def test_the_first_that_fails_stops_the_rest_and_is_named(post, log):
    want = replace(WANT, commands=("echo fine", "echo to be seen; exit 3", "echo never"))
    step = FakeStep.of(post.address, want)
    with pytest.raises(CinderError) as caught:
        post.kind.create(post.address, want, step)
    problem = caught.value.diagnostics[0]
    assert problem.summary == "command 2 of 3 failed with exit code 3: echo to be seen; exit 3"
    assert problem.detail == "to be seen"
    assert str(log) in problem.hint
    assert step.logged == ["to be seen\n"]
    assert log.read_text() == "fine\nto be seen\n"
    assert post.observe().attributes["state"] == "failed at line 2"
    assert post.changed(want) == ["state"]


def test_an_interrupted_run_is_seen_and_done_again(post, context, log):
    """The process was killed: the record is there, and says that it is not done."""
    write_record(context.cluster.records, FakeStep.of(post.address, WANT).record, {"state": "interrupted"})
    assert post.changed(WANT) == ["state"]
    post.update(WANT)
    assert log.read_text() == "one\ntwo\n"
    assert post.changed(WANT) == []


def test_stopping_the_run_ends_the_command_and_all_it_started(post, context):
    """A fifo shows it: its reader sees the end once nobody can write any more."""
    fifo = context.cluster.root / "fifo"
    context.cluster.root.mkdir(parents=True)
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    started = context.cluster.root / "started"
    want = replace(WANT, commands=(f"(exec 3>{fifo}; touch {started}; exec sleep 600) & wait",))
    with pytest.raises(InterruptedRunError):
        post.create(want, cancel_when=started.exists)
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert post.observe().attributes["state"] == "interrupted"
