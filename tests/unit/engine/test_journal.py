"""The journal on the disk: durable, checked, recovered, compacted."""

from __future__ import annotations

import os
import threading

import pytest

from cinderctl.engine.journal import Journal, JournalError, read_journal
from tests.fakes.world import address

A, B = address("server.a"), address("app.b")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cluster" / "journal"


def a_run(path, run="r1", steps=((A, "create", "done"),), present=(), settled=()):
    with Journal.open(path, now=lambda: 5.0) as journal:
        journal.start_run(run, "apply", present=present, settled=settled)
        for where, phase, outcome in steps:
            begun = journal.begin(where, phase)
            if outcome:
                journal.end(begun, outcome, 0.25, "why" if outcome == "failed" else "")
        journal.finish_run(run, "done", 1.5)


def test_no_file_is_an_empty_history(path):
    history = read_journal(path)
    assert not history.unfinished
    assert not history.existing
    assert not history.runs


def test_runs_and_steps_are_read_back(path):
    a_run(path, steps=[(A, "create", "done"), (B, "update", "failed")])
    history = read_journal(path)
    assert history.existing == {A}
    assert history.unfinished == {B: "update"}
    (run,) = history.runs
    assert (run.run, run.mode, run.outcome, run.seconds) == ("r1", "apply", "done", 1.5)
    assert [(step.phase, step.outcome, step.seconds, step.detail) for step in run.steps] == [
        ("create", "done", 0.25, ""),
        ("update", "failed", 0.25, "why"),
    ]


def test_a_begin_without_an_end_is_unfinished_until_it_is_done(path):
    a_run(path, steps=[(A, "create", "")])
    assert read_journal(path).unfinished == {A: "create"}
    a_run(path, steps=[(A, "update", "done")])
    assert read_journal(path).unfinished == {}


def test_a_deletion_ends_the_existence(path):
    a_run(path)
    a_run(path, steps=[(A, "delete", "done")], present=[A])
    assert read_journal(path).existing == frozenset()


def test_what_is_settled_is_unfinished_no_more(path):
    a_run(path, steps=[(A, "create", "")])
    a_run(path, steps=[], settled=[A])
    assert read_journal(path).unfinished == {}


def test_the_world_corrects_what_exists(path):
    a_run(path)
    a_run(path, steps=[], present=[B])
    assert read_journal(path).existing == {B}


def test_file_and_directory_are_for_the_owner_only(path):
    a_run(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_torn_tail_is_dropped_at_any_length(path):
    a_run(path, steps=[(A, "create", "done"), (B, "create", "done")])
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(last, len(whole)):
        path.write_bytes(whole[:cut])
        assert read_journal(path).existing == {A, B}
        assert read_journal(path).runs[0].outcome == ""
    a_run(path, run="r2")
    assert [run.run for run in read_journal(path).runs] == ["r1", "r2"]


def test_a_tail_of_zeros_after_a_power_cut_is_dropped(path):
    a_run(path)
    with path.open("ab") as stream:
        stream.write(b"\0" * 512)
    a_run(path, run="r2", steps=[(B, "create", "done")], present=[A])
    assert read_journal(path).existing == {A, B}


def test_a_flipped_byte_anywhere_before_the_last_record_is_loud_and_never_repaired(path):
    a_run(path)
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for at in range(0, last, 7):
        damaged = bytearray(whole)
        damaged[at] ^= 0x01
        path.write_bytes(damaged)
        with pytest.raises(JournalError) as caught:
            read_journal(path)
        assert "damaged at line" in caught.value.diagnostics[0].summary
        assert f"mv {path}" in caught.value.diagnostics[0].hint
        with pytest.raises(JournalError):
            Journal.open(path)
        assert path.read_bytes() == bytes(damaged)


def test_a_missing_record_is_damage(path):
    a_run(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(JournalError, match="damaged at line 3"):
        read_journal(path)


def test_a_file_that_is_no_journal_is_not_overwritten(path):
    path.parent.mkdir()
    path.write_text("my notes\n")
    with pytest.raises(JournalError):
        Journal.open(path)
    assert path.read_text() == "my notes\n"


def test_an_empty_file_is_a_new_journal(path):
    path.parent.mkdir()
    path.touch()
    a_run(path)
    assert read_journal(path).existing == {A}


def test_a_journal_of_a_newer_version_is_refused(path):
    from cinderctl.engine import journal as module

    path.parent.mkdir()
    path.write_bytes(module._line({"n": 0, "t": "journal", "version": 2}))
    with pytest.raises(JournalError, match="written by a newer version"):
        read_journal(path)


def test_compaction_keeps_the_state_and_the_newest_runs(path):
    for number in range(30):
        a_run(path, run=f"r{number}", steps=[(address(f"server.{number}"), "create", "done")], present=())
    a_run(path, run="broken", steps=[(B, "update", "")], present=[A, B])
    before = read_journal(path)
    with Journal.open(path, limit=3000) as journal:
        assert journal.history.existing == before.existing
    after = read_journal(path)
    assert (after.existing, after.unfinished) == (before.existing, before.unfinished)
    assert path.stat().st_size < 3000
    assert 1 < len(after.runs) < 31
    assert after.runs == before.runs[-len(after.runs) :]
    a_run(path, run="next", steps=[(B, "update", "done")], present=[A, B])
    assert read_journal(path).unfinished == {}


def test_threads_that_wait_together_share_one_sync(path, monkeypatch):
    release, entered = threading.Event(), threading.Event()
    real = os.fsync

    def slow(file):
        entered.set()
        release.wait(5)
        real(file)

    with Journal.open(path) as journal:
        journal.start_run("r", "apply", present=(), settled=())
        monkeypatch.setattr(os, "fsync", slow)
        threads = [
            threading.Thread(target=journal.begin, args=(address(f"server.{index}"), "create")) for index in range(20)
        ]
        threads[0].start()
        assert entered.wait(5)
        for thread in threads[1:]:
            thread.start()
        deadline = threading.Event()
        while journal._number < 21 and not deadline.wait(0.001):
            pass
        release.set()
        for thread in threads:
            thread.join(5)
        assert journal.syncs == 2
    assert len(read_journal(path).unfinished) == 20


def test_a_read_only_directory_is_an_error_before_any_act(path, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(JournalError, match="cannot write the journal") as caught:
        Journal.open(path)
    assert "Read-only file system" in caught.value.diagnostics[0].detail
