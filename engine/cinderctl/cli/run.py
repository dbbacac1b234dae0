"""Run the command line once: parse, call the command, turn what goes wrong into words and an exit code.

Typer's own exit code for a usage error is 2, which is what `drift` and `plan --detailed-exitcode` say when there is
something to see; so usage errors leave with 64 (sysexits.h, EX_USAGE) and a line of help.
"""

from __future__ import annotations

import itertools
import os
import select
import sys
import traceback
from collections.abc import Sequence

import typer

from cinderctl.cli.diagnostics import as_json, as_text
from cinderctl.cli.tree import app
from cinderctl.core.diagnostics import CinderError, Diagnostic, InterruptedRunError

__all__ = ["run"]

_USAGE = 64
_COMPLETION = "_CINDERCTL_COMPLETE"  # set by the completion scripts that typer installs
_INTERRUPTED = 130


def run(arguments: Sequence[str]) -> int:
    """The exit code. Nothing but `SystemExit` of the completion machinery escapes, and faults with `--debug`."""
    if _COMPLETION in os.environ:
        app(prog_name="cinderctl")  # the shell asks what could follow; typer answers and exits
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    code = 0
    try:
        code = _invoke(arguments)
        # Now, not at exit: a reader that is gone is noticed here or by nobody.
        sys.stdout.flush()
    except CinderError as error:
        if debug:
            traceback.print_exc()
        return _report(error, arguments)
    except Exception as error:
        usage = _usage_message(error)
        if usage is not None:
            sys.stderr.write(usage)
            return _USAGE
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return code
        if debug:
            raise
        return _report(_unexpected(error), arguments)
    return code


def _invoke(arguments: Sequence[str]) -> int:
    try:
        command = typer.main.get_command(app)
        with command.make_context("cinderctl", list(arguments)) as context:
            command.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    except typer.Abort:
        return _INTERRUPTED
    except KeyboardInterrupt as error:
        raise InterruptedRunError("interrupted", hint="it is safe to run the same command again") from error
    return 0


def _reader_is_gone() -> bool:
    """Whether it is stdout whose reader (head, less) has seen enough, rather than a pipe or socket of ours."""
    look = select.poll()
    try:
        out = sys.stdout.fileno()
        look.register(out, 0)
    except (OSError, ValueError):
        return False  # a stdout that is no file
    if not any(events & select.POLLERR for _, events in look.poll(0)):
        return False
    # Python would complain while closing stdout.
    os.dup2(os.open(os.devnull, os.O_WRONLY), out)
    return True


def _usage_message(error: Exception) -> str | None:
    """The words of a click usage error; None for anything else. Typer carries a click of its own, so by duck type."""
    show = getattr(error, "format_message", None)
    if show is None:
        return None
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return f"{show()}\n"  # a command that needs a subcommand: its words are the help page
    usage = f"{context.get_usage()}\n" if context is not None else ""
    where = f"\nhint: `{context.command_path} --help` lists what there is\n" if context is not None else ""
    return f"{usage}error: {show()}\n{where}"


def _unexpected(error: Exception) -> CinderError:
    problem = Diagnostic(
        f"{type(error).__name__}: {error}",
        detail="This is a fault in cinderctl itself; what was done so far is kept.",
        hint="run the command again with --debug and report what it prints",
    )
    return CinderError(problem)


def _report(error: CinderError, arguments: Sequence[str]) -> int:
    # One damaged file may be met on several ways; it is one problem.
    problems = tuple(dict.fromkeys(error.diagnostics))
    if _wants_json(arguments):
        sys.stderr.write(as_json(problems) + "\n")
    else:
        sys.stderr.write(as_text(problems, color=sys.stderr.isatty() and not os.environ.get("NO_COLOR")))
    return error.exit_code


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--output json` was asked for, before or without typer having read the arguments."""
    pairs = itertools.pairwise(arguments)
    return bool({"--output=json", "-ojson"} & set(arguments)) or any(
        option in {"--output", "-o"} and value == "json" for option, value in pairs
    )
