"""`registryMirrors`: where images of a registry really come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from cinderctl.spec.base import Text, wrong

__all__ = ["RegistryMirrors"]

_HOST = re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:(?P<port>[0-9]{1,5}))?")


def _registry_host(key: str) -> str:
    if "://" in key:
        host = key.partition("://")[2].rstrip("/")
        raise wrong(
            "registry host with a scheme",
            "The key is the host as image references have it; only the endpoint is a URL",
            f"write `{host}`",
        )
    if "/" in key:
        raise wrong(
            "registry host with a path",
            "The key is the host (and port) as image references have it",
            f"write `{key.partition('/')[0]}`",
        )
    match = _HOST.fullmatch(key)
    if not match or int(match["port"] or 1) not in range(1, 65536):
        raise wrong("not a registry host", "A host is `name` or `name:port`")
    return key


def _endpoint(value: str) -> str:
    if not value.strip():
        raise wrong("registry mirror without an endpoint", hint="write a URL, as `https://mirror.example`")
    if "@" in value.rpartition("://")[2].partition("/")[0]:
        raise wrong(
            "registry mirror endpoint with credentials",
            "A spec is no place for secrets",
            "put them into the Docker configuration (`docker login`) or an imagePullSecret",
        )
    scheme, colon, rest = value.partition("://")
    if not colon:
        raise wrong(
            "registry mirror endpoint has no scheme",
            "The endpoint must be a full URL; a plain name cannot tell http from https",
            f"write `http://{value}` for a plain-http registry",
        )
    if scheme.lower() not in ("http", "https"):
        raise wrong(
            "registry mirror endpoint is neither http nor https",
            f"Registries do not speak `{scheme}`",
            f"write `https://{rest}`",
        )
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise wrong("registry mirror endpoint is not a URL", str(error)) from error
    if not parts.hostname or port == 0 or re.search(r"\s", value):
        raise wrong(
            "registry mirror endpoint is not a URL", "A URL is `https://host`, `https://host:port` or with a path"
        )
    if parts.query or parts.fragment:
        raise wrong(
            "registry mirror endpoint with a query", hint=f"write `{value.partition('?')[0].partition('#')[0]}`"
        )
    return value.rstrip("/")


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


RegistryMirrors: TypeAlias = Mapping[
    Annotated[Text, AfterValidator(_registry_host)],
    Annotated[
        tuple[Annotated[Text, AfterValidator(_endpoint)], ...],
        BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
        Field(min_length=1),
    ],
]
