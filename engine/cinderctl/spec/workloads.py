"""What the cluster starts with: `artifacts`, `manifests`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cinderctl.spec.base import DnsLabel, KubernetesObject, NonEmpty, SpecModel, Text, wrong

__all__ = ["Artifact", "ArtifactBuild", "Manifest"]

_REPOSITORY = re.compile(r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)*")
_HOST = re.compile(
    r"(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|[A-Za-z0-9.-]+:[0-9]{1,5}|\[[0-9a-fA-F:]+\](:[0-9]{1,5})?)"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def _reference(value: str) -> str:
    if "://" in value:
        raise wrong("a reference has no scheme", hint=f"write `{value.partition('://')[2]}`")
    if "@" in value:
        raise wrong("a digest cannot be pushed to", "It follows from the module", "name a tag, as `:v1`")
    host, slash, rest = value.partition("/")
    if not slash or not _HOST.fullmatch(host):
        raise wrong(
            "reference without a registry",
            "It says where the module is pushed, so it begins with the registry's host",
            f"write `localhost:5000/{value}` for the cluster's own registry",
        )
    repository, colon, tag = rest.partition(":")
    if not _REPOSITORY.fullmatch(repository):
        raise wrong(
            "not a repository name", f"`{repository}` may hold lower-case letters, digits, `.`, `_`, `-` and `/`"
        )
    if not colon or not _TAG.fullmatch(tag):
        raise wrong("reference without a tag", "Pods name the module by it", f"write `{host}/{repository}:v1`")
    return value


def _command(value: Any) -> Any:
    """A text is a line for the shell."""
    return ["/bin/sh", "-c", value] if isinstance(value, str) else value


class ArtifactBuild(SpecModel):
    """How the module is made before it is pushed."""

    command: Annotated[
        tuple[NonEmpty, ...],
        BeforeValidator(_command, json_schema_input_type=str | list[str]),
        Field(min_length=1),
    ] = Field(description="The command: one line for the shell, or a list of program and arguments.")
    directory: Text = Field(
        default="", description="Where it runs, relative to the spec. Default: the spec's directory."
    )
    inputs: tuple[NonEmpty, ...] = Field(
        default=(),
        description="Files that the module is made from (globs below `directory`): it is built anew when one changes.",
    )


class Artifact(SpecModel):
    """A WebAssembly module that is kept in a registry."""

    name: DnsLabel = Field(description="Name of the resource: `artifact.<name>`.")
    path: NonEmpty = Field(description="The module on this machine, relative to the spec; what `build` leaves.")
    build: ArtifactBuild | None = Field(default=None, description="How the module is made.")
    reference: Annotated[NonEmpty, AfterValidator(_reference)] = Field(
        description="Where it is pushed, as localhost:5000/hello-world:v1."
    )
    format: Literal["cncf", "wasm-to-oci"] = Field(
        default="cncf", description="Form of the OCI manifest: the CNCF wasm artifact, or the one of wasm-to-oci."
    )


class Manifest(SpecModel):
    """Kubernetes objects to apply: those of a file, or one written out."""

    path: NonEmpty | None = Field(
        default=None,
        description="A YAML or JSON file of one or more objects, or a directory of such files, relative to the spec.",
    )
    inline: KubernetesObject | None = Field(default=None, description="One object.")

    @model_validator(mode="before")
    @classmethod
    def _object_is_inline(cls, data: Any) -> Any:
        if (
            isinstance(data, Mapping)
            and "kind" in data
            and "apiVersion" in data
            and not {"path", "inline"} & data.keys()
        ):
            raise wrong("a Kubernetes object without `inline:`", hint="put the object below `inline:`")
        return data

    @model_validator(mode="after")
    def _one_source(self) -> Manifest:
        if (self.path is None) == (self.inline is None):
            raise wrong("a manifest has either `path` or `inline`")
        return self
