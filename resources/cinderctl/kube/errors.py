"""What can go wrong when talking to a Kubernetes API server, in the server's own words.

KubeError                 an answer that is no success; `.status` (HTTP), `.reason` (StatusReason), `.causes`
├── NotFoundError         404
├── ConflictError         409  the resource version moved, a precondition failed, another manager owns the field
├── AlreadyExistsError    409  with reason AlreadyExists
├── ForbiddenError        403
├── UnauthorizedError     401
├── InvalidError          400, 422  the server refuses the object; `.causes` name the fields
├── GoneError             410  a resource version or continue token is too old
├── UnknownKindError           no such kind is served
├── ThrottledError        429                      also a TransientError
├── UnavailableError      5xx that may pass        also a TransientError
└── UnreachableError      no answer at all         also a TransientError
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cinderctl.core.diagnostics import CinderError, Diagnostic, TransientError

__all__ = [
    "AlreadyExistsError",
    "Cause",
    "ConflictError",
    "ForbiddenError",
    "GoneError",
    "InvalidError",
    "KubeError",
    "NotFoundError",
    "ThrottledError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownKindError",
    "UnreachableError",
    "error_from_status",
]


@dataclass(frozen=True, slots=True)
class Cause:
    """One entry of `Status.details.causes`: which field, why. For server-side apply `message` names the other
    manager.
    """

    field: str
    message: str
    reason: str = ""


class KubeError(CinderError):
    """The API server said no. `status` is 0 when no HTTP answer stands behind it."""

    def __init__(
        self,
        problem: str | Diagnostic | Sequence[Diagnostic],
        *,
        detail: str = "",
        hint: str = "",
        status: int = 0,
        reason: str = "",
        causes: Sequence[Cause] = (),
    ) -> None:
        CinderError.__init__(self, problem, detail=detail, hint=hint)
        self.status = status
        self.reason = reason
        self.causes = tuple(causes)


class NotFoundError(KubeError):
    pass


class ConflictError(KubeError):
    pass


class AlreadyExistsError(KubeError):
    pass


class ForbiddenError(KubeError):
    pass


class UnauthorizedError(KubeError):
    pass


class InvalidError(KubeError):
    pass


class GoneError(KubeError):
    pass


class UnknownKindError(KubeError):
    pass


class _PassingError(KubeError, TransientError):
    """A KubeError worth another try, not before `retry_after` seconds."""

    def __init__(
        self,
        problem: str | Diagnostic | Sequence[Diagnostic],
        *,
        detail: str = "",
        hint: str = "",
        status: int = 0,
        reason: str = "",
        causes: Sequence[Cause] = (),
        retry_after: float = 0.5,
    ) -> None:
        KubeError.__init__(self, problem, detail=detail, hint=hint, status=status, reason=reason, causes=causes)
        self.retry_after = retry_after


class ThrottledError(_PassingError):
    pass


class UnavailableError(_PassingError):
    pass


class UnreachableError(_PassingError):
    pass


_BY_REASON: Mapping[str, type[KubeError]] = {
    "AlreadyExists": AlreadyExistsError,
    "Expired": GoneError,
    "Gone": GoneError,
}
_BY_STATUS: Mapping[int, type[KubeError]] = {
    400: InvalidError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
}
_PASSING_STATUS = frozenset({500, 502, 503, 504})


def error_from_status(what: str, status: int, body: Any, retry_after: str = "") -> KubeError:
    """The error for an HTTP answer. `what` is the request as a reader knows it (`GET /api/v1/nodes/a`).

    `body` is a decoded `metav1.Status`, or text where something else than the API machinery answered; `retry_after`
    is the header. A 500 passes only when the server itself says when to come back (reasons ServerTimeout and Timeout
    do).
    """
    known = body if isinstance(body, dict) and body.get("kind") == "Status" else {}
    status = int(known.get("code") or status)
    reason = str(known.get("reason") or "")
    details: Mapping[str, Any] = known.get("details") or {}
    causes = [
        Cause(str(c.get("field") or ""), str(c.get("message") or ""), str(c.get("reason") or ""))
        for c in details.get("causes") or ()
    ]
    text = str(known.get("message") or "").strip() or (body.strip()[:500] if isinstance(body, str) else "")
    summary = text or f"the API server answered {status}"
    detail = f"{what} was answered with {status}{f' {reason}' if reason else ''}"
    delay = details.get("retryAfterSeconds") or (int(retry_after) if retry_after.isdigit() else 0)
    if status == 429:
        return ThrottledError(
            summary, detail=detail, status=status, reason=reason, causes=causes, retry_after=float(delay or 1)
        )
    if status in _PASSING_STATUS and (status != 500 or delay or reason in {"ServerTimeout", "Timeout"}):
        return UnavailableError(
            summary, detail=detail, status=status, reason=reason, causes=causes, retry_after=float(delay or 0.5)
        )
    kind = _BY_REASON.get(reason) or _BY_STATUS.get(status, KubeError)
    return kind(summary, detail=detail, status=status, reason=reason, causes=causes)
