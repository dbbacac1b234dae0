"""Options that several commands share, each defined once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = ["AutoApprove", "Files", "LockTimeout", "Name", "NoColor", "OutFile", "Output", "OutputOption", "Parallelism"]


class Output(StrEnum):
    """How a command says its result. JSON is a contract (`format_version`), text is for people."""

    TEXT = "text"
    JSON = "json"


Files: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--file",
        "-f",
        help="The spec; `-` is stdin. Given several times, later files overlay earlier ones. "
        "[default: cluster.yaml, else cinder.yaml, in the current directory]",
        metavar="FILE",
    ),
]
Name: TypeAlias = Annotated[
    str | None, typer.Option("--name", help="The cluster's name, in place of the spec's metadata.name.", metavar="NAME")
]
OutputOption: TypeAlias = Annotated[Output, typer.Option("--output", "-o", help="text or json.")]
AutoApprove: TypeAlias = Annotated[bool, typer.Option("--auto-approve", help="Do not ask before changing anything.")]
Parallelism: TypeAlias = Annotated[
    int, typer.Option("--parallelism", min=1, max=256, help="Steps that may run at the same time.")
]
LockTimeout: TypeAlias = Annotated[
    float, typer.Option("--lock-timeout", min=0, help="Seconds to wait for another run on this cluster to end.")
]
NoColor: TypeAlias = Annotated[bool, typer.Option("--no-color", help="No colour, whatever the terminal says.")]
OutFile: TypeAlias = Annotated[Path | None, typer.Option("--out", help="Save the plan to this file.", metavar="FILE")]
