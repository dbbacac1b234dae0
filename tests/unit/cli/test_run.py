"""What leaves the process: exit codes, words on the right stream, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cinderctl.cli import wiring
from cinderctl.cli.run import run
from cinderctl.core.diagnostics import CinderError, LockedError
from cinderctl.core.version import __version__


class Tty:
    """Enough of a terminal for a stream to be taken for one."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        return

    def isatty(self) -> bool:
        return True


@pytest.fixture
def failing(monkeypatch):
    """`validate` meets this error."""

    def fail_with(error: BaseException) -> None:
        def load(*_: object) -> None:
            raise error

        monkeypatch.setattr(wiring, "load_spec", load)

    return fail_with


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["aply"], "No such command 'aply'. Did you mean 'apply'?"),
        (["apply", "--auto-aprove"], "--auto-approve"),
        (["apply", "--parallelism", "0"], "'--parallelism'"),
        (["apply", "--parallelism", "many"], "'--parallelism'"),
        (["plan", "--output", "yaml"], "'--output'"),
        (["push", "module.wasm"], "Missing argument 'REFERENCE'"),
        (["get", "cluster"], "'clusters'"),
    ],
)
def test_a_usage_error_is_64_with_the_nearest_word_and_a_hint(arguments, words, capsys):
    assert run(arguments) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.startswith("Usage: cinderctl")
    assert err.count("error: ") == 1
    assert f"hint: `cinderctl{' ' + arguments[0] if len(arguments) > 1 else ''} --help` lists what there is" in err


@pytest.mark.parametrize(("arguments", "words"), [([], "plan  "), (["get"], "clusters "), (["state"], "list ")])
def test_a_command_that_needs_a_subcommand_lists_them_once(arguments, words, capsys):
    assert run(arguments) == 64
    err = capsys.readouterr().err
    assert words in err
    assert err.count("Usage:") == 1
    assert "error:" not in err


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_data_and_no_error(option, capsys):
    assert run([option]) == 0
    out, err = capsys.readouterr()
    assert "Exit codes: 0 done" in out
    assert err == ""


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_version(arguments, capsys):
    assert run(arguments) == 0
    assert capsys.readouterr().out == f"cinderctl {__version__}\n"


def test_an_error_of_ours_is_words_on_stderr_and_its_exit_code(failing, capsys):
    failing(LockedError("cluster a is locked", detail="by pid 7", hint="wait with --lock-timeout"))
    assert run(["validate"]) == 6
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: cluster a is locked\n  by pid 7\n\nhint: wait with --lock-timeout\n"


@pytest.mark.parametrize("arguments", [["--output", "json"], ["-o", "json"], ["--output=json"]])
def test_an_error_is_json_where_json_was_asked_for(arguments, failing, capsys):
    failing(CinderError("no", detail="because", hint="try"))
    assert run(["validate", *arguments]) == 1
    value = json.loads(capsys.readouterr().err)
    assert value["format_version"] == "1.0"
    assert value["diagnostics"] == [
        {
            "severity": "error",
            "summary": "no",
            "detail": "because",
            "hint": "try",
            "address": "",
            "path": "",
            "source": "",
        }
    ]


def test_a_file_named_json_does_not_ask_for_json(failing, capsys):
    failing(CinderError("no"))
    assert run(["validate", "-f", "json"]) == 1
    assert capsys.readouterr().err == "error: no\n"


def test_a_fault_of_our_own_is_words_too(failing, capsys):
    failing(ZeroDivisionError("division by zero"))
    assert run(["validate"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ZeroDivisionError: division by zero\n")
    assert "hint: run the command again with --debug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("place", [["--debug", "validate"], ["validate", "--debug"]])
def test_debug_shows_where_an_error_came_from(place, failing, capsys):
    failing(CinderError("no"))
    assert run(place) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("error: no\n")


def test_debug_lets_a_fault_through(failing):
    failing(ZeroDivisionError("x"))
    with pytest.raises(ZeroDivisionError):
        run(["validate", "--debug"])


def test_ctrl_c_is_130_and_says_that_it_is_safe(failing, capsys):
    failing(KeyboardInterrupt())
    assert run(["validate"]) == 130
    assert "safe to run the same command again" in capsys.readouterr().err


def test_a_broken_pipe_that_is_not_stdout_is_an_error(failing, capsys):
    failing(BrokenPipeError("the supervisor hung up"))
    assert run(["validate"]) == 1
    assert "the supervisor hung up" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["schema"], ["version"], ["--help"]], ids=["long", "short", "help"])
def test_a_reader_that_went_away_is_no_error(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cinderctl.cli.app", *arguments],
            stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_colour_on_a_terminal_unless_no_color(no_color, colored, failing, monkeypatch):
    monkeypatch.setenv("NO_COLOR", no_color)
    stream = Tty()
    monkeypatch.setattr(sys, "stderr", stream)
    failing(CinderError("no"))
    assert run(["validate"]) == 1
    assert ("\033[" in stream.text) is colored
    assert stream.text.replace("\033[1;31m", "").replace("\033[0m", "") == "error: no\n"


def test_the_shell_completes_commands():
    asked = {"_CINDERCTL_COMPLETE": "complete_bash", "COMP_WORDS": "cinderctl dri", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "cinderctl.cli.app"], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["drift"]
