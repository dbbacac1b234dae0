"""`cinderctl binaries`: what upstream's binaries are there, and getting them ahead of time."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from cinderctl.cli.options import Output, OutputOption

__all__ = ["app"]

app = typer.Typer(help="Upstream's binaries: list, fetch, find.", no_args_is_help=True)

Version = Annotated[
    str, typer.Option("--kubernetes-version", help="Kubernetes version, as v1.36.3.", metavar="VERSION")
]
Directory = Annotated[str, typer.Option("--directory", help="A directory of yours that is looked at first.")]
_LOCKED = "v1.36.3"


@app.command("list")
def list_(
    version: Version = _LOCKED,
    directory: Directory = "",
    verify: Annotated[bool, typer.Option("--verify", help="Hash every cached file anew.")] = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Show where each binary is and where it came from."""
    from cinderctl.binaries.listing import list_binaries
    from cinderctl.cli.tables import table
    from cinderctl.cli.wiring import binary_sources

    rows = list_binaries(binary_sources().with_directory(directory), kubernetes_version=version, verify=verify)
    if output is Output.JSON:
        sys.stdout.write(json.dumps({"format_version": "1.0", "binaries": [asdict(row) for row in rows]}) + "\n")
        return
    shown = [
        (r.name, r.version, r.state, f"{r.size / 1e6:.0f} MB" if r.size else "", r.origin or r.detail) for r in rows
    ]
    sys.stdout.write(table(("NAME", "VERSION", "STATE", "SIZE", "ORIGIN"), shown))


@app.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Binaries to get. [default: all a cluster needs]")] = None,
    version: Version = _LOCKED,
    directory: Directory = "",
    no_download: Annotated[bool, typer.Option("--no-download", help="Do not try the official downloads.")] = False,
    no_build: Annotated[bool, typer.Option("--no-build", help="Do not build from Go modules.")] = False,
) -> None:
    """Get binaries into the shared cache: a download, checked, else a pinned build from Go modules."""
    from dataclasses import replace

    from cinderctl.binaries.catalog import DEFAULT
    from cinderctl.binaries.ensure import ensure
    from cinderctl.cli.progress import Progress
    from cinderctl.cli.wiring import binary_sources

    sources = replace(
        binary_sources().with_directory(directory), allow_download=not no_download, allow_build=not no_build
    )
    with Progress(sys.stderr) as progress:
        found = ensure(names or DEFAULT, sources, kubernetes_version=version, progress=progress.update)
    for name, path in found.items():
        sys.stdout.write(f"{name}\t{path}\n")


@app.command()
def path(
    name: Annotated[str, typer.Argument(help="One binary, as kubectl.")],
    version: Version = _LOCKED,
    directory: Directory = "",
) -> None:
    """Print the path of one binary that is there."""
    from cinderctl.binaries.ensure import find
    from cinderctl.cli.wiring import binary_sources
    from cinderctl.core.diagnostics import CinderError

    found = find([name], binary_sources().with_directory(directory), kubernetes_version=version)
    if name not in found:
        raise CinderError(f"{name} {version} is not there yet", hint=f"run `cinderctl binaries fetch {name}`")
    sys.stdout.write(f"{found[name]}\n")
