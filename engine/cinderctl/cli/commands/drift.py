"""`drift`: has the world moved? For CI: the exit code is the answer."""

from __future__ import annotations

import sys

import typer

from cinderctl.cli.options import Files, Name, NoColor, Output, OutputOption, Parallelism

__all__ = ["drift"]


def drift(
    files: Files = None,
    name: Name = None,
    output: OutputOption = Output.TEXT,
    parallelism: Parallelism = 10,
    no_color: NoColor = False,
) -> None:
    """Say what moved in the world since the last apply: exit 2 when something did, 0 when nothing did."""
    from cinderctl.cli.wiring import load_spec, open_session
    from cinderctl.cli.workspace import color_of, look, plan_for, tell, width_of
    from cinderctl.core.diagnostics import UnobservableError
    from cinderctl.plans import drift as drifts
    from cinderctl.plans.model import Mode

    loaded = load_spec(files, name)
    tell(loaded.warnings)
    session = open_session(loaded, loaded.config.name)
    found = drifts.drift_of(plan_for(session, look(session, parallelism=parallelism), Mode.APPLY))
    if output is Output.JSON:
        sys.stdout.write(drifts.render_json(found))
    else:
        sys.stdout.write(drifts.render_text(found, width=width_of(sys.stdout), color=color_of(sys.stdout, no_color)))
    if found.unobserved:
        raise UnobservableError(found.unobserved)
    if found.drifted:
        raise typer.Exit(2)
