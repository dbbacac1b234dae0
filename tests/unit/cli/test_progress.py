"""Long work shows signs of life: often on a terminal, seldom in a log."""

from __future__ import annotations

import io

import pytest

from cinderctl.cli.progress import Progress, amount
from cinderctl.cli.tables import table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (None, None, ""),
        (None, 5, ""),
        (0, None, "0"),
        (3, None, "3"),
        (12, 48, "12 of 48"),
        (0, 0, "0"),
        (500_000, 2_000_000, "0 of 2 MB"),
        (12_600_000, 80_000_000, "13 of 80 MB"),
        (12_600_000, None, "13 MB"),
    ],
)
def test_amounts(done, total, text):
    assert amount(done, total) == text


def test_a_log_gets_a_line_for_each_thing_and_one_now_and_then():
    clock, stream = Clock(), io.StringIO()
    with Progress(stream, clock) as progress:
        progress.update("downloading etcd", 0, 50_000_000)
        progress.update("downloading etcd", 10_000_000, 50_000_000)
        clock.now += 4.9
        progress.update("downloading etcd", 20_000_000, 50_000_000)
        clock.now += 0.2
        progress.update("downloading etcd", 30_000_000, 50_000_000)
        progress.update("building kubectl")
    assert stream.getvalue() == "downloading etcd  0 of 50 MB\ndownloading etcd  30 of 50 MB\nbuilding kubectl\n"


def test_a_terminal_gets_one_line_that_is_gone_at_the_end(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    clock, stream = Clock(), Terminal()
    with Progress(stream, clock) as progress:
        progress.update("downloading kube-apiserver")
        progress.update("downloading kube-apiserver", 1, 2)
        clock.now += 0.2
        progress.update("x", 1, 2)
    assert stream.getvalue() == "\r\033[Kdownloading kube-ap\r\033[Kx  1 of 2\r\033[K"


def test_nothing_said_leaves_nothing():
    stream = Terminal()
    with Progress(stream, Clock()):
        pass
    assert stream.getvalue() == ""


def test_columns_are_as_wide_as_their_content_without_trailing_spaces():
    assert table(("NAME", "STATE"), [("etcd", "ready"), ("kube-apiserver", "")]) == (
        "NAME             STATE\n"
        "etcd             ready\n"
        "kube-apiserver\n"
    )  # fmt: skip


def test_a_table_of_nothing_is_its_head():
    assert table(("NAME", "STATE"), []) == "NAME   STATE\n"
