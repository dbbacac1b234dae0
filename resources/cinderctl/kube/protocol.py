"""What both transports share: content types, query strings, answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlencode

import orjson

from cinderctl.kube.errors import error_from_status

__all__ = [
    "PATCH_TYPES",
    "USER_AGENT",
    "PatchType",
    "answer",
    "delete_options",
    "encode_body",
    "list_query",
    "patch_query",
    "with_kinds",
    "with_query",
]

PatchType = Literal["merge", "strategic", "json", "apply"]

PATCH_TYPES: Mapping[str, str] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",  # JSON is YAML; servers before 1.31 know no other apply type
}
USER_AGENT = "cinderctl"
PAGE = 500  # objects per list request, as client-go's pager asks for


def encode_body(body: Any) -> bytes | None:
    """Bytes and text go as they are, None stays None, everything else becomes JSON."""
    match body:
        case None | bytes():
            return body
        case str():
            return body.encode()
        case _:
            return orjson.dumps(body)


def with_query(path: str, query: Mapping[str, Any] | None) -> str:
    """`path` with query parameters; None and "" are left out, booleans become `true` and `false`."""
    if not query:
        return path
    pairs = {
        k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in query.items() if v is not None and v != ""
    }
    if not pairs:
        return path
    return f"{path}{'&' if '?' in path else '?'}{urlencode(pairs)}"


def answer(what: str, status: int, content_type: str, retry_after: str, data: bytes) -> Any:
    """The decoded body of a success: JSON as objects, anything else as text. Raises KubeError for other statuses."""
    value: Any = None
    if data and "json" in content_type:
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            value = data.decode(errors="replace")
    elif data:
        value = data.decode(errors="replace")
    if status >= 300:
        raise error_from_status(what, status, value, retry_after)
    return value


def list_query(label_selector: str, field_selector: str, proceed: str) -> dict[str, Any]:
    """Query of one page of a list; `proceed` is the token the page before ended with."""
    return {"labelSelector": label_selector, "fieldSelector": field_selector, "limit": PAGE, "continue": proceed}


def patch_query(type_: PatchType, field_manager: str, force: bool, dry_run: bool = False) -> dict[str, Any]:
    return {
        "fieldManager": field_manager,
        "force": True if force and type_ == "apply" else None,
        "dryRun": "All" if dry_run else None,
    }


def delete_options(grace: int | None, propagation: str, preconditions_uid: str) -> dict[str, Any]:
    """`grace` in seconds (None: the object's own), `propagation` Background, Foreground or Orphan."""
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
    if grace is not None:
        options["gracePeriodSeconds"] = grace
    if preconditions_uid:
        options["preconditions"] = {"uid": preconditions_uid}
    return options


def with_kinds(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items of a list answer, each with the apiVersion and kind that lists leave out."""
    api_version, kind = page.get("apiVersion"), str(page.get("kind") or "").removesuffix("List")
    items: list[dict[str, Any]] = page.get("items") or []
    for item in items:
        item.setdefault("apiVersion", api_version)
        item.setdefault("kind", kind)
    return items
