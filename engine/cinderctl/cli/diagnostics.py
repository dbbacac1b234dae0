"""Problems as text: what, where, why, what to do."""

from __future__ import annotations

import json
from collections.abc import Iterable

from cinderctl.core.diagnostics import Diagnostic
from cinderctl.plans.render_json import FORMAT_VERSION, diagnostic_to_json
from cinderctl.spec.diagnostics import SpecDiagnostic, render_path

__all__ = ["as_json", "as_text"]

_COLORS = {"error": "\033[1;31m", "warning": "\033[1;33m"}
_RESET = "\033[0m"


def as_text(problems: Iterable[Diagnostic], *, color: bool) -> str:
    """One block a problem, a blank line between them."""
    return "\n".join(_block(problem, color=color) for problem in problems)


def _block(problem: Diagnostic, *, color: bool) -> str:
    head = problem.severity.value
    if color:
        head = f"{_COLORS[head]}{head}{_RESET}"
    lines = [f"{head}: {problem.summary}"]
    place = "  ".join(filter(None, [problem.source, str(problem.address or ""), _field(problem)]))
    if place:
        lines.append(f"  {place}")
    lines += [f"  {line}" for line in problem.detail.splitlines()]
    if problem.hint:
        lines += ["", f"hint: {problem.hint}"]
    return "\n".join(lines) + "\n"


def _field(problem: Diagnostic) -> str:
    return problem.field if isinstance(problem, SpecDiagnostic) else render_path(problem.path)


def as_json(problems: Iterable[Diagnostic]) -> str:
    """`{"format_version": "1.0", "diagnostics": [...]}` on one line; each in the form plans and events have it in."""
    items = [diagnostic_to_json(problem) for problem in problems]
    return json.dumps({"format_version": FORMAT_VERSION, "diagnostics": items}, ensure_ascii=False)
