"""`apply`: do what the plan shows, after a question."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cinderctl.cli.options import AutoApprove, Files, LockTimeout, Name, NoColor, Output, OutputOption, Parallelism

if TYPE_CHECKING:
    from cinderctl.cli.wiring import Session
    from cinderctl.engine.executor import ApplyResult
    from cinderctl.engine.observe import World
    from cinderctl.plans.model import Plan
    from cinderctl.spec.load import Loaded

__all__ = ["apply", "apply_spec", "execute"]

_ROUNDS = 3  # a control plane that was down hides what is in it: mended, everything can be seen


def apply(
    plan_file: Annotated[
        Path | None, typer.Argument(help="A plan saved by `plan --out`: exactly that is done.", metavar="PLAN")
    ] = None,
    files: Files = None,
    name: Name = None,
    auto_approve: AutoApprove = False,
    output: OutputOption = Output.TEXT,
    parallelism: Parallelism = 10,
    lock_timeout: LockTimeout = 0,
    no_color: NoColor = False,
) -> None:
    """Make the world as the spec says."""
    from cinderctl.cli.wiring import load_spec

    if plan_file is not None:
        _apply_saved(plan_file, files, name, output=output, parallelism=parallelism, lock_timeout=lock_timeout)
        return
    apply_spec(
        load_spec(files, name),
        auto_approve=auto_approve,
        output=output,
        parallelism=parallelism,
        lock_timeout=lock_timeout,
        no_color=no_color,
    )


def apply_spec(
    loaded: Loaded,
    *,
    auto_approve: bool,
    output: Output = Output.TEXT,
    parallelism: int = 10,
    lock_timeout: float = 0,
    no_color: bool = False,
) -> None:
    """Look, plan, ask, do. Raises: CinderError with the exit code of how it ended."""
    from cinderctl.cli.wiring import open_session
    from cinderctl.cli.workspace import approve, color_of, locked, look, plan_for, tell, width_of
    from cinderctl.core.diagnostics import CinderError, UnobservableError
    from cinderctl.engine.planner import worth_planning_again
    from cinderctl.plans.model import Mode
    from cinderctl.plans.render_text import render_text

    tell(loaded.warnings)
    session = open_session(loaded, loaded.config.name)
    with locked(session, "apply", lock_timeout):
        for _ in range(_ROUNDS):
            world = look(session, parallelism=parallelism)
            plan = plan_for(session, world, Mode.APPLY)
            if output is Output.TEXT:
                stream = sys.stderr if auto_approve and not plan.pending else sys.stdout
                stream.write(render_text(plan, width=width_of(stream), color=color_of(stream, no_color)))
                stream.flush()
            if plan.errors:
                raise CinderError(plan.errors)
            if plan.pending:
                approve(f"Change cluster {session.name!r} as shown?", auto_approve=auto_approve)
                execute(session, plan, world, output=output, parallelism=parallelism)
            if not plan.unobserved:
                break
            if not (plan.pending and worth_planning_again(plan)):
                raise UnobservableError(plan.unobserved)


def _apply_saved(
    plan_file: Path, files: Files, name: Name, *, output: Output, parallelism: int, lock_timeout: float
) -> None:
    from cinderctl.cli.wiring import load_spec, open_session
    from cinderctl.cli.workspace import locked, look, read_plan
    from cinderctl.core.diagnostics import StalePlanError
    from cinderctl.engine.facts import check_declarations, check_fresh, relied_on
    from cinderctl.plans.model import Mode

    saved = read_plan(plan_file)
    # The plan file holds no secret, so the spec is read again, and must still say the same.
    loaded = load_spec(files or saved.spec_files, name)
    if loaded.digest != saved.spec_digest:
        raise StalePlanError("the spec changed since the plan was saved", hint="make a new plan")
    session = open_session(loaded, loaded.config.name)
    if saved.plan.mode is Mode.APPLY:
        check_declarations(saved.plan, session.declarations)
    with locked(session, "apply", lock_timeout):
        world = look(session, parallelism=parallelism, only=relied_on(saved.plan))
        check_fresh(saved.plan, world.observations)
        if saved.plan.pending:
            execute(session, saved.plan, world, output=output, parallelism=parallelism)


def execute(session: Session, plan: Plan, world: World, *, output: Output, parallelism: int) -> ApplyResult:
    """Run a plan with its console. Raises: CinderError when not all was done."""
    import json

    from cinderctl.cli.console import make_console
    from cinderctl.engine.events import event_to_json
    from cinderctl.engine.executor import apply_plan
    from cinderctl.engine.journal import Journal
    from cinderctl.engine.steps import Interrupt, interrupt_on_signals
    from cinderctl.host.files import ensure_dir
    from cinderctl.plans.model import Mode

    ensure_dir(session.context.cluster.root)
    console = make_console(sys.stderr, plan) if output is Output.TEXT else None
    interrupt = Interrupt()
    declarations = session.declarations if plan.mode is Mode.APPLY else ()
    with Journal.open(session.context.cluster.journal) as journal, interrupt_on_signals(interrupt):
        context = ""
        try:
            result = apply_plan(
                plan,
                declarations,
                world,
                session.kinds,
                journal=journal,
                emit=console.emit if console else lambda event: print_line(json.dumps(event_to_json(event))),
                parallelism=parallelism,
                interrupt=interrupt,
            )
            error = result.error()
            context = _context_set(session, plan) if error is None else ""
        finally:
            if console:
                console.close(context=context)
    if error is not None:
        raise error
    return result


def print_line(text: str) -> None:
    """One line of NDJSON, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _context_set(session: Session, plan: Plan) -> str:
    """The context that this run made current; "" when it made none."""
    created = any(change.address.kind == "kubeconfig" and change.action.value == "create" for change in plan.pending)
    if session.loaded is None or not created or not session.loaded.config.kubeconfig.set_current:
        return ""
    return session.loaded.config.context_name
