"""A question is asked only of somebody who can answer, and only `yes` is yes."""

from __future__ import annotations

import io
import sys

import pytest

from cinderctl.cli.workspace import approve, color_of, width_of
from cinderctl.core.diagnostics import ApprovalError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_the_plan_is_not_approved(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    with pytest.raises(ApprovalError) as caught:
        approve("Change?", auto_approve=False)
    assert "--auto-approve" in caught.value.diagnostics[0].hint
    assert caught.value.exit_code == 1


def test_auto_approve_asks_nobody(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    approve("Change?", auto_approve=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("answer", ["yes\n", " yes \n", "yes"])
def test_yes_is_yes(answer, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    approve("Change cluster 'a' as shown?", auto_approve=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "\nChange cluster 'a' as shown?\n  Only `yes` is accepted: "


@pytest.mark.parametrize("answer", ["", "\n", "y\n", "no\n", "YES\n", "yes please\n"])
def test_anything_else_is_no(answer, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    with pytest.raises(ApprovalError, match="nothing was changed"):
        approve("Change?", auto_approve=False)


@pytest.mark.parametrize(
    ("stream", "environment", "no_color", "expected"),
    [
        (Terminal(), {}, False, True),
        (Terminal(), {}, True, False),
        (Terminal(), {"NO_COLOR": "1"}, False, False),
        (Terminal(), {"NO_COLOR": ""}, False, True),
        (Terminal(), {"TERM": "dumb"}, False, False),
        (io.StringIO(), {}, False, False),
    ],
)
def test_colour(stream, environment, no_color, expected, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert color_of(stream, no_color) is expected


def test_a_pipe_is_80_columns_wide_and_a_terminal_its_own(monkeypatch):
    monkeypatch.setenv("COLUMNS", "133")
    assert width_of(io.StringIO()) == 80
    assert width_of(Terminal()) == 133
