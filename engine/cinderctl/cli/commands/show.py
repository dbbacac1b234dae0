"""`validate`, `show`, `graph`, `schema`, `state list`: reading, nothing else."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cinderctl.cli.options import Files, Name, NoColor, Output, OutputOption

__all__ = ["graph", "schema", "show", "state", "validate"]

state = typer.Typer(help="What cinderctl knows of a cluster.", no_args_is_help=True)


class GraphFormat(StrEnum):
    """How a graph is written."""

    DOT = "dot"
    MERMAID = "mermaid"


def validate(files: Files = None, name: Name = None, output: OutputOption = Output.TEXT) -> None:
    """Check the spec: every problem at once, with file and line. Looks at nothing else."""
    from cinderctl.cli.wiring import load_spec, open_session
    from cinderctl.cli.workspace import tell
    from cinderctl.engine.graph import ResourceGraph

    loaded = load_spec(files, name)
    tell(loaded.warnings)
    session = open_session(loaded, loaded.config.name)
    ResourceGraph.from_declarations(session.declarations)
    count = len(session.declarations)
    if output is Output.JSON:
        value = {"format_version": "1.0", "valid": True, "cluster": session.name, "resources": count}
        sys.stdout.write(json.dumps(value) + "\n")
    else:
        sys.stdout.write(f"The spec is valid: cluster {session.name}, {count} resources.\n")


def show(
    file: Annotated[Path, typer.Argument(help="A plan saved by `plan --out`.", metavar="FILE")],
    output: OutputOption = Output.TEXT,
    no_color: NoColor = False,
) -> None:
    """Show a saved plan."""
    from cinderctl.cli.workspace import color_of, read_plan, width_of
    from cinderctl.plans.render_json import render_json
    from cinderctl.plans.render_text import render_text

    saved = read_plan(file)
    if output is Output.JSON:
        sys.stdout.write(render_json(saved.plan))
    else:
        sys.stdout.write(render_text(saved.plan, width=width_of(sys.stdout), color=color_of(sys.stdout, no_color)))


def graph(
    files: Files = None,
    name: Name = None,
    form: Annotated[GraphFormat, typer.Option("--format", help="dot or mermaid.")] = GraphFormat.DOT,
    plan: Annotated[bool, typer.Option("--plan", help="Look at the world and colour what would change.")] = False,
) -> None:
    """Print the graph of resources."""
    from cinderctl.cli.wiring import load_spec, open_session
    from cinderctl.cli.workspace import look, plan_for
    from cinderctl.engine.graph import ResourceGraph
    from cinderctl.plans.model import Mode
    from cinderctl.plans.render_graph import render_dot, render_mermaid

    loaded = load_spec(files, name)
    session = open_session(loaded, loaded.config.name)
    edges = ResourceGraph.from_declarations(session.declarations).dependencies
    actions = {}
    if plan:
        made = plan_for(session, look(session), Mode.APPLY)
        actions = {change.address: change.action for change in made.changes}
    render = render_dot if form is GraphFormat.DOT else render_mermaid
    sys.stdout.write(render(edges, actions))


def schema() -> None:
    """Print the JSON Schema of the spec, for editors."""
    from cinderctl.spec.schema import schema_text

    sys.stdout.write(schema_text())


@state.command("list")
def state_list(files: Files = None, name: Name = None, output: OutputOption = Output.TEXT) -> None:
    """List every resource that exists and is ours, as the world has it."""
    from cinderctl.cli.wiring import cluster_name, open_session
    from cinderctl.cli.workspace import look
    from cinderctl.core.diagnostics import UnobservableError
    from cinderctl.engine.kinds import Existence

    session = open_session(None, cluster_name(files, name))
    world = look(session)
    seen = sorted(world.everything().items())
    if output is Output.JSON:
        rows = [
            {
                "address": str(address),
                "existence": one.existence.value,
                "outputs": dict(one.outputs),
                "depends_on": [str(edge) for edge in one.record.depends_on] if one.record else [],
                "digest": one.record.digest if one.record else None,
            }
            for address, one in seen
        ]
        sys.stdout.write(json.dumps({"format_version": "1.0", "cluster": session.name, "resources": rows}) + "\n")
    else:
        for address, one in seen:
            note = "" if one.existence is Existence.PRESENT else f"  ({one.existence.value})"
            sys.stdout.write(f"{address}{note}\n")
    unseen = [one.unknown for _, one in seen if one.unknown is not None]
    if unseen:
        raise UnobservableError(unseen)
