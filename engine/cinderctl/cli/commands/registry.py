"""`push`, `pull`, `inspect`: WebAssembly modules and registries, without a cluster."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cinderctl.cli.options import Output, OutputOption

__all__ = ["inspect", "pull", "push"]


class Format(StrEnum):
    """Form of the manifest."""

    CNCF = "cncf"
    WASM_TO_OCI = "wasm-to-oci"


Reference = Annotated[str, typer.Argument(help="Where, as localhost:5000/hello-world:v1.", metavar="REFERENCE")]


def push(
    file: Annotated[Path, typer.Argument(help="The module.", metavar="FILE")],
    reference: Reference,
    form: Annotated[Format, typer.Option("--format", help="cncf, or wasm-to-oci as Krustlet reads it.")] = Format.CNCF,
    output: OutputOption = Output.TEXT,
) -> None:
    """Push a WebAssembly module to a registry."""
    from cinderctl.cli.wiring import registry_client
    from cinderctl.oci.artifact import push_module
    from cinderctl.oci.reference import parse_reference

    with registry_client() as client:
        pushed = push_module(client, parse_reference(reference), file, format=form.value)
    if output is Output.JSON:
        sys.stdout.write(json.dumps({"format_version": "1.0", "reference": reference, **asdict(pushed)}) + "\n")
        return
    sys.stdout.write(f"Pushed: {reference}\nSize: {pushed.size}\nDigest: {pushed.digest}\n")


def pull(
    reference: Reference,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write. [default: NAME.wasm]", metavar="FILE")
    ] = None,
) -> None:
    """Pull a WebAssembly module from a registry, in whatever form it is kept there."""
    from cinderctl.cli.wiring import registry_client
    from cinderctl.core.diagnostics import UsageError
    from cinderctl.oci.artifact import pull_module
    from cinderctl.oci.reference import parse_reference

    ref = parse_reference(reference)
    target = out or Path(ref.repository.rpartition("/")[2] + ".wasm")
    if target.exists():
        raise UsageError(f"{target} exists", hint="name another file with --out, or remove this one")
    with registry_client() as client:
        pulled = pull_module(client, ref, target)
    sys.stdout.write(f"Pulled: {pulled.path}\nSize: {pulled.size}\nDigest: {pulled.manifest_digest}\n")


def inspect(reference: Reference, output: OutputOption = Output.TEXT) -> None:
    """Show what a reference stands for: format, size, what the module imports and exports."""
    from cinderctl.cli.wiring import registry_client
    from cinderctl.oci import artifact
    from cinderctl.oci.reference import parse_reference

    with registry_client() as client:
        seen = artifact.inspect(client, parse_reference(reference))
    value = asdict(seen)
    if output is Output.JSON:
        sys.stdout.write(json.dumps({"format_version": "1.0", **value}, default=str) + "\n")
        return
    width = max(len(key) for key in value)
    for key, item in value.items():
        if isinstance(item, (list, tuple)):
            text = ("\n" + " " * (width + 2)).join(str(entry) for entry in item) or "-"
        elif isinstance(item, dict):
            text = ("\n" + " " * (width + 2)).join(f"{name} = {entry}" for name, entry in item.items()) or "-"
        else:
            text = str(item) if item not in ("", None) else "-"
        sys.stdout.write(f"{key.replace('_', ' ').ljust(width)}  {text}\n")
