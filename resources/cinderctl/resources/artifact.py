"""A WebAssembly module in a registry, under one reference.

Owned: what the tag points to, as long as it is what we pushed (the recorded digest). The same module always gives the
same manifest, so comparing digests takes one small request, and a rebuilt but equal module is no change.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError
from cinderctl.engine.kinds import Existence, Observation, Scope, Step, input_field
from cinderctl.host.records import delete_record, list_records, read_extra, read_record, write_record
from cinderctl.oci.errors import ManifestUnknownError, OciError
from cinderctl.oci.reference import parse_reference
from cinderctl.plans.model import FieldChange
from cinderctl.resources.context import Context

if TYPE_CHECKING:
    from cinderctl.oci.client import RegistryClient

__all__ = ["ArtifactInputs", "ArtifactKind"]


@dataclass(frozen=True, slots=True)
class ArtifactInputs:
    reference: str = input_field("Where it is pushed, as localhost:5000/hello-world:v1", replaces=True)
    path: str = input_field("The module's file")
    digest: str = input_field("Digest of the manifest that the module gives; empty while it is yet to be built")
    format: Literal["cncf", "wasm-to-oci"] = input_field("Manifest form: cncf or wasm-to-oci", default="cncf")
    build: tuple[str, ...] = input_field("Program and arguments that make the file, run before each push", default=())
    directory: str = input_field("Directory the build runs in", default="")


class ArtifactKind:
    kind: ClassVar[str] = "artifact"
    inputs: ClassVar[type[Any]] = ArtifactInputs
    deadline: ClassVar[float] = 600.0
    parallelism: ClassVar[int] = 2
    volatile_outputs: ClassVar[frozenset[str]] = frozenset({"digest"})

    def __init__(self, context: Context, client: Callable[[], RegistryClient]) -> None:
        """`client` is called when a registry is to be asked."""
        self._context = context
        self._records = context.cluster.records
        self._client = client

    def discover(self, scope: Scope) -> Iterable[Observation]:
        for record in list_records(self._records, self.kind):
            if record.address not in scope.declared:
                yield self.observe(record.address, None, scope)

    def observe(self, address: Address, want: ArtifactInputs | None, scope: Scope) -> Observation:
        del want, scope
        record = read_record(self._records, address)
        if record is None:
            return Observation.absent(address)
        try:
            digest = self._client().resolve(parse_reference(str(record.inputs["reference"]))).digest
        except ManifestUnknownError:
            return Observation.absent(address)
        except OciError as error:
            return Observation.not_seen(address, error.diagnostics[0].located(address=address))
        attributes = {"reference": record.inputs["reference"], "digest": digest}
        return Observation(address, Existence.PRESENT, attributes, {"digest": digest}, record)

    def create(self, address: Address, want: ArtifactInputs, step: Step) -> Mapping[str, Any]:
        from cinderctl.oci.artifact import artifact_digest, push_module  # noqa: PLC0415 - for specs with artifacts only

        del address
        if want.build:
            self._build(want, step)
        module = Path(want.path)
        if want.digest and not want.build and artifact_digest(module, format=want.format) != want.digest:
            raise CinderError(f"{module} changed while the plan was applied", hint="run apply again")
        step.progress(f"pushing {want.reference}")
        pushed = push_module(self._client(), parse_reference(want.reference), module, format=want.format)
        write_record(self._records, step.record, {"digest": pushed.digest})
        return {"digest": pushed.digest}

    def update(
        self, address: Address, want: ArtifactInputs, have: Observation, changes: Sequence[FieldChange], step: Step
    ) -> Mapping[str, Any]:
        del have, changes
        return self.create(address, want, step)

    def delete(self, have: Observation, step: Step) -> None:
        reference = parse_reference(str(step.record.inputs["reference"]))
        ours = read_extra(self._records, have.address).get("digest")
        if ours and have.outputs.get("digest") == ours:
            self._client().delete_manifest(reference)
        delete_record(self._records, have.address)

    def _build(self, want: ArtifactInputs, step: Step) -> None:
        step.progress(f"building {want.path}")
        process = subprocess.run(
            list(want.build),
            cwd=want.directory or None,
            env=dict(self._context.command_environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        output = process.stdout.decode(errors="replace")
        if process.returncode:
            step.log(output)
            raise CinderError(
                f"building {want.path} failed with exit code {process.returncode}: {shlex.join(want.build)}",
                detail=output[-2000:].strip() or "it printed nothing",
            )
