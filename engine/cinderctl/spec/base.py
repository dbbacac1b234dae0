"""What every model of the spec is made of: the base class, the scalar types, the way to say what is wrong."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from cinderctl.spec.written import Word, WrittenFloat, WrittenInt, as_kubernetes

__all__ = [
    "DnsLabel",
    "Flag",
    "FlagValue",
    "KubernetesMap",
    "KubernetesObject",
    "NonEmpty",
    "Number",
    "Port",
    "SpecModel",
    "Switch",
    "Text",
    "as_written",
    "is_dns_name",
    "is_ip",
    "wrong",
]


def wrong(summary: str, detail: str = "", hint: str = "") -> PydanticCustomError:
    """An error for a validator to raise; `spec.messages` turns it into a located diagnostic."""
    context = {"summary": summary, "detail": detail, "hint": hint}
    return PydanticCustomError("spec", "{summary}", context)


class SpecModel(BaseModel):
    """Frozen, camelCase in YAML, unknown fields are errors. An empty field (`files:`) means its default."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_alias=True, validate_by_name=False
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        known = {info.alias or name for name, info in cls.model_fields.items()}
        return {key: value for key, value in data.items() if value is not None or key not in known}


def _switch(value: Any) -> Any:
    return value.boolean if isinstance(value, Word) else value


def _number(value: Any) -> Any:
    if isinstance(value, WrittenInt):
        if re.fullmatch(r"[-+]?0[0-9]+", value.text):
            raise wrong(
                "number with a leading zero",
                "Some YAML readers take it for octal, others for decimal",
                f"write {int(value)}",
            )
        return int(value)
    return value


def as_written(value: Any) -> Any:
    """Scalars as the text they were written as, lists of them joined by commas; anything else unchanged."""
    match value:
        case bool():
            return "true" if value else "false"
        case WrittenInt() | WrittenFloat():
            return value.text
        case int() | float():
            return str(value)
        case list() if value and all(isinstance(item, str | int | float) for item in value):
            return ",".join(as_written(item) for item in value)
    return value


def _flag(name: str) -> str:
    if name.startswith("-"):
        raise wrong("flag names have no leading dashes", hint=f"write `{name.lstrip('-')}`")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
        raise wrong("not a flag name", "A flag name holds lower-case letters, digits and dashes")
    return name


def _not_empty(value: str) -> str:
    if not value.strip():
        raise wrong("must not be empty")
    return value


_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def _dns_label(value: str) -> str:
    if len(value) > 63 or not _LABEL.fullmatch(value):
        suggestion = re.sub(r"[^a-z0-9-]+", "-", value.lower()).strip("-")[:63].rstrip("-")
        raise wrong(
            "not a DNS label",
            "Use lower-case letters, digits and `-`, at most 63, beginning and ending with a letter or digit",
            f"write `{suggestion}`" if suggestion and suggestion != value else "",
        )
    return value


def is_dns_name(value: str) -> bool:
    """Whether a text is a host name: dot-separated labels, at most 253 characters, no IPv4 address gone wrong."""
    labels = value.split(".")
    return len(value) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()


def is_ip(value: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _kubernetes_object(value: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("apiVersion", "kind"):
        if not isinstance(value.get(key), str) or not value[key]:
            raise wrong(f"a Kubernetes object needs `{key}`")
    return value


# Scalars are strict: YAML knows the difference between 5000 and "5000", and so do the readers of a file.
Text: TypeAlias = Annotated[str, Strict()]
NonEmpty: TypeAlias = Annotated[str, Strict(), AfterValidator(_not_empty)]
DnsLabel: TypeAlias = Annotated[
    str,
    Strict(),
    AfterValidator(_dns_label),
    Field(json_schema_extra={"maxLength": 63, "pattern": f"^{_LABEL.pattern}$"}),
]
Switch: TypeAlias = Annotated[bool, BeforeValidator(_switch), Strict()]
Number: TypeAlias = Annotated[int, BeforeValidator(_number), Strict()]
Port: TypeAlias = Annotated[int, BeforeValidator(_number), Strict(), Field(ge=1, le=65535)]

# Command-line flags of upstream programs: any scalar is taken as written, a list as its items joined by commas.
_SCALARS: list[Any] = ["string", "number", "boolean"]
Flag: TypeAlias = Annotated[str, Strict(), AfterValidator(_flag)]
FlagValue: TypeAlias = Annotated[
    str,
    BeforeValidator(as_written),
    Strict(),
    WithJsonSchema({"type": [*_SCALARS, "array"], "items": {"type": _SCALARS}}),
]

# Pieces of Kubernetes' own API: passed on, read as kubectl would read them.
KubernetesMap: TypeAlias = Annotated[Mapping[str, Any], BeforeValidator(as_kubernetes)]
KubernetesObject: TypeAlias = Annotated[
    Mapping[str, Any], BeforeValidator(as_kubernetes), AfterValidator(_kubernetes_object)
]
