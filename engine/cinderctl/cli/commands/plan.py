"""`plan`: what would change and why. Changes nothing."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cinderctl.cli.options import Files, LockTimeout, Name, NoColor, OutFile, Output, OutputOption, Parallelism

__all__ = ["plan"]


def plan(
    files: Files = None,
    name: Name = None,
    out: OutFile = None,
    destroy: Annotated[bool, typer.Option("--destroy", help="Plan to remove everything.")] = False,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 2 when there is something to change.")
    ] = False,
    output: OutputOption = Output.TEXT,
    parallelism: Parallelism = 10,
    lock_timeout: LockTimeout = 0,
    no_color: NoColor = False,
) -> None:
    """Show what `apply` would do, and why."""
    from cinderctl.cli.wiring import load_spec, open_session
    from cinderctl.cli.workspace import color_of, look, plan_for, tell, width_of
    from cinderctl.core.diagnostics import CinderError, UnobservableError
    from cinderctl.plans.model import Mode

    del lock_timeout  # looking needs no lock; the option is there so that scripts can pass it to every command
    loaded = load_spec(files, name)
    tell(loaded.warnings)
    session = open_session(loaded, loaded.config.name)
    mode = Mode.DESTROY if destroy else Mode.APPLY
    made = plan_for(session, look(session, parallelism=parallelism), mode)
    if output is Output.JSON:
        from cinderctl.plans.render_json import render_json

        sys.stdout.write(render_json(made))
    else:
        from cinderctl.plans.render_text import render_text

        sys.stdout.write(render_text(made, width=width_of(sys.stdout), color=color_of(sys.stdout, no_color)))
    if made.errors:
        raise CinderError(made.errors)
    if out is not None:
        from cinderctl.host.files import write_atomic
        from cinderctl.plans.planfile import save_plan

        write_atomic(out, save_plan(made, spec_digest=loaded.digest, spec_files=[str(file) for file in loaded.files]))
        sys.stderr.write(f"saved to {out}; `cinderctl apply {out}` does exactly this\n")
    if made.unobserved:
        raise UnobservableError(made.unobserved)
    if detailed_exitcode and made.pending:
        raise typer.Exit(2)
