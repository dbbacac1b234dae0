"""One look at the world and what follows from it: shared by plan, apply, destroy and drift."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from cinderctl.cli.diagnostics import as_text
from cinderctl.cli.wiring import Session
from cinderctl.core.address import Address
from cinderctl.core.diagnostics import ApprovalError, Diagnostic, PlanFileError
from cinderctl.engine.journal import History, read_journal
from cinderctl.engine.lock import Lock, Owner
from cinderctl.engine.observe import World, observe_world
from cinderctl.engine.planner import make_plan
from cinderctl.plans.model import Mode, Plan
from cinderctl.plans.planfile import SavedPlan, load_plan

__all__ = ["approve", "color_of", "locked", "look", "plan_for", "read_plan", "tell", "width_of"]


def look(session: Session, *, parallelism: int = 10, only: frozenset[Address] | None = None) -> World:
    """Observe everything the spec declares and everything of ours that it does not."""
    return observe_world(
        session.declarations, session.kinds, session.name, parallelism=parallelism, only=only, debug=False
    )


def plan_for(session: Session, world: World, mode: Mode) -> Plan:
    """The plan, with the journal's words on interrupted work."""
    history = _history(session)
    return make_plan(
        session.declarations if mode is Mode.APPLY else (),
        world,
        session.kinds,
        cluster=session.name,
        mode=mode,
        unfinished=history.unfinished,
        known=history.existing,
    )


def _history(session: Session) -> History:
    return read_journal(session.context.cluster.journal)


def color_of(stream: TextIO, no_color: bool = False) -> bool:
    """Colour on a terminal, unless NO_COLOR (no-color.org) or the option says otherwise."""
    return stream.isatty() and not no_color and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width_of(stream: TextIO) -> int:
    """Columns to fill: the terminal's, 80 in a pipe."""
    return shutil.get_terminal_size().columns if stream.isatty() else 80


def tell(problems: Sequence[Diagnostic]) -> None:
    """Warnings, on stderr."""
    if problems:
        sys.stderr.write(as_text(problems, color=color_of(sys.stderr)) + "\n")


def approve(question: str, *, auto_approve: bool) -> None:
    """Ask on a terminal; only `yes` is yes. Raises: ApprovalError when nobody can be asked, or says no."""
    if auto_approve:
        return
    if not sys.stdin.isatty():
        raise ApprovalError(
            "nobody is there to approve the plan", hint="read the plan, then run again with --auto-approve"
        )
    sys.stderr.write(f"\n{question}\n  Only `yes` is accepted: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != "yes":
        raise ApprovalError("not approved; nothing was changed")


def locked(session: Session, command: str, timeout: float) -> Lock:
    """The cluster lock, for a `with`; says on stderr whom it waits for. Raises: LockedError after `timeout` seconds."""
    return Lock.acquire(
        session.context.cluster.lock, timeout=timeout, command=f"cinderctl {command}", on_wait=_say_waiting
    )


def _say_waiting(owner: Owner | None) -> None:
    sys.stderr.write(f"waiting for {owner or 'another run'} ...\n")


def read_plan(file: Path) -> SavedPlan:
    """A plan saved by `plan --out`. Raises: PlanFileError."""
    try:
        return load_plan(file.read_bytes())
    except OSError as error:
        raise PlanFileError(f"cannot read {file}", detail=str(error.strerror)) from error
