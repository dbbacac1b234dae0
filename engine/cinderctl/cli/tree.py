"""The tree of commands. Importing it imports typer and the command modules, and nothing that a command needs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from cinderctl.cli.commands import apply, binaries, cinder, cluster, destroy, drift, plan, registry, show
from cinderctl.core.version import __version__

__all__ = ["app"]

app = typer.Typer(
    name="cinderctl",
    help="Terraform for Kubernetes clusters with WebAssembly nodes: one file, plan, apply, drift, destroy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Global: --debug shows where an error came from; --version prints the version. "
    "Exit codes: 0 done, 1 failed, 2 changes or drift, 3 partly applied, 4 not all could be seen, 5 stale plan, "
    "6 locked, 64 usage, 130 interrupted.",
)


def _print_version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def _root(
    asked: Annotated[  # noqa: ARG001  its callback has acted, before typer misses a command
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    return


def version() -> None:
    """Print the version."""
    sys.stdout.write(f"cinderctl {__version__}\n")


_MAIN = "Main commands"
_LOOK = "Looking"
_CLUSTER = "Running clusters"
_MODULES = "Modules and registries"
_CINDER = "As cinder had them"

_PANELS: tuple[tuple[str, tuple[Callable[..., None], ...]], ...] = (
    (_MAIN, (plan.plan, apply.apply, destroy.destroy, drift.drift)),
    (_LOOK, (show.validate, show.show, show.graph, show.schema)),
    (_CLUSTER, (cluster.status, cluster.logs, cluster.start, cluster.stop)),
    (_MODULES, (registry.push, registry.pull, registry.inspect)),
)
for _panel, _commands in _PANELS:
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
app.add_typer(show.state, name="state", rich_help_panel=_LOOK)
app.add_typer(binaries.app, name="binaries", rich_help_panel=_MODULES)
app.add_typer(cinder.create, name="create", rich_help_panel=_CINDER)
app.add_typer(cinder.delete, name="delete", rich_help_panel=_CINDER)
app.add_typer(cinder.get, name="get", rich_help_panel=_CINDER)
app.add_typer(cinder.export, name="export", rich_help_panel=_CINDER)
app.command(rich_help_panel=_CINDER, hidden=True)(version)
