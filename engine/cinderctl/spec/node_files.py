"""What goes into a node: `files`, `extraMounts`, `extraPortMappings`."""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import re
import zlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from cinderctl.spec.base import NonEmpty, Number, Port, SpecModel, Switch, Text, is_ip, wrong
from cinderctl.spec.written import WrittenInt

__all__ = ["File", "Mount", "PortMapping"]

DEFAULT_PERMISSIONS = "0644"

# The largest file that an encoding may unpack to, in bytes: a node's file is configuration, not data.
_MOST_BYTES = 64 * 1024 * 1024


def _permissions(value: Any) -> Any:
    """An unquoted 0644 is taken as written: the digits are what everybody means."""
    text = value.text if isinstance(value, WrittenInt) else value
    if text == "":
        return DEFAULT_PERMISSIONS
    if isinstance(text, str) and not re.fullmatch(r"(0o?)?[0-7]{3,4}", text):
        raise wrong(
            "not file permissions",
            "Permissions are three or four octal digits",
            'write them as `"0644"`',
        )
    return text


def _node_path(value: str) -> str:
    parts = value.split("/")
    if not value.startswith("/") or value.endswith("/"):
        raise wrong("must be an absolute path of a file")
    if ".." in parts or "\0" in value:
        raise wrong("must not leave its directory", "`..` has no place in a path of the node")
    return value


class File(SpecModel):
    """A file written into the node before anything else runs. On the process provider it goes below the cluster's own
    directory, never to the host's path."""

    path: Annotated[NonEmpty, AfterValidator(_node_path)] = Field(description="Absolute path in the node.")
    owner: Text = Field(default="", description="Owner as `user:group`. The process provider leaves files yours.")
    permissions: Annotated[str, BeforeValidator(_permissions, json_schema_input_type=str)] = Field(
        default=DEFAULT_PERMISSIONS, description="Octal permissions."
    )
    encoding: Literal["", "base64", "gzip", "gzip+base64", "hostpath"] = Field(
        default="",
        description="How `content` is encoded. `hostpath`: it is the path of a file on this machine, relative to the "
        "spec. `gzip+base64`: base64 of gzip. (`gzip` alone cannot be carried by YAML.)",
    )
    content: Text = Field(description="The content, as the encoding says.")

    @field_validator("content")
    @classmethod
    def _decodes(cls, content: str, info: ValidationInfo) -> str:
        encoding = info.data.get("encoding", "")
        if encoding != "hostpath":
            _decoded(content, encoding)
        elif not content.strip():
            raise wrong("no path in `content`", "With `encoding: hostpath` the content is the path of a file")
        return content

    def data(self) -> bytes:
        """The bytes to write. Raises: OSError reading the file of a `hostpath`."""
        if self.encoding == "hostpath":
            return Path(self.content).read_bytes()
        return _decoded(self.content, self.encoding)

    @property
    def mode(self) -> int:
        """The permissions as a number."""
        return int(self.permissions.replace("o", ""), 8)


def _decoded(content: str, encoding: str) -> bytes:
    match encoding:
        case "base64":
            return _base64(content)
        case "gzip+base64":
            return _gunzip(_base64(content))
        case "gzip":
            raise wrong(
                "`gzip` alone cannot be carried by YAML",
                "The bytes of a gzip file are no text",
                "encode them (`gzip -c FILE | base64`) and write `encoding: gzip+base64`",
            )
    return content.encode()


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise wrong("content is not base64", f"{error}".rstrip(".")) from error


def _gunzip(data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            plain = file.read(_MOST_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise wrong("content is not gzip", "The base64 decodes, but to something else") from error
    if len(plain) > _MOST_BYTES:
        raise wrong("content is too large", f"It unpacks to more than {_MOST_BYTES >> 20} MiB")
    return plain


class Mount(SpecModel):
    """A host directory seen in the node container."""

    host_path: NonEmpty = Field(description="Path on this machine, relative to the spec.")
    container_path: NonEmpty = Field(description="Path in the node.")
    read_only: Switch = Field(default=False, description="Mount read-only.")
    attrs: tuple[NonEmpty, ...] = Field(default=(), description="More mount options, as `ro`, `z`, `rslave`.")


class PortMapping(SpecModel):
    """A port of the node container, published on this machine."""

    container_port: Port = Field(description="Port in the node.")
    host_port: Annotated[Number, Field(ge=0, le=65535)] = Field(
        default=0, description="Port on this machine; 0: any free one."
    )
    listen_address: Text = Field(default="127.0.0.1", description="Address on this machine.")
    protocol: Literal["TCP", "UDP"] = Field(default="TCP", description="Protocol.")

    @model_validator(mode="after")
    def _address(self) -> PortMapping:
        if not is_ip(self.listen_address):
            raise wrong("`listenAddress` is not an IP address", hint="write 127.0.0.1, or 0.0.0.0 for every interface")
        return self
