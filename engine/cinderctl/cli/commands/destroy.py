"""`destroy`: remove everything that was made for a cluster, and leave nothing."""

from __future__ import annotations

import sys

from cinderctl.cli.options import AutoApprove, Files, LockTimeout, Name, NoColor, Output, OutputOption, Parallelism

__all__ = ["destroy", "destroy_cluster"]


def destroy(
    files: Files = None,
    name: Name = None,
    auto_approve: AutoApprove = False,
    output: OutputOption = Output.TEXT,
    parallelism: Parallelism = 10,
    lock_timeout: LockTimeout = 0,
    no_color: NoColor = False,
) -> None:
    """Remove everything that was made for the cluster."""
    from cinderctl.cli.wiring import cluster_name
    from cinderctl.core.diagnostics import Diagnostic, SpecError

    try:
        wanted = cluster_name(files, name)
    except SpecError as error:
        hint = (
            "destroy needs no more than the name: `cinderctl destroy --name NAME`; `cinderctl get clusters` lists them"
        )
        raise SpecError(
            [*error.diagnostics, Diagnostic("the spec does not say which cluster to destroy", hint=hint)]
        ) from error
    destroy_cluster(
        wanted,
        auto_approve=auto_approve,
        output=output,
        parallelism=parallelism,
        lock_timeout=lock_timeout,
        no_color=no_color,
    )


def destroy_cluster(
    name: str,
    *,
    auto_approve: bool,
    output: Output = Output.TEXT,
    parallelism: int = 10,
    lock_timeout: float = 0,
    no_color: bool = False,
) -> None:
    """Needs no spec: the world says what is ours. No cluster of that name is no error."""
    from cinderctl.cli.commands.apply import execute
    from cinderctl.cli.wiring import home, open_session
    from cinderctl.cli.workspace import approve, color_of, locked, look, plan_for, width_of
    from cinderctl.core.diagnostics import CinderError, Diagnostic, PartialError, UnobservableError
    from cinderctl.host.control import stop_supervisor
    from cinderctl.host.files import remove_tree
    from cinderctl.host.records import list_records
    from cinderctl.plans.model import Mode
    from cinderctl.plans.render_text import render_text

    directory = home().cluster(name)
    if not directory.root.exists():
        sys.stderr.write(f"there is no cluster {name!r}: nothing to destroy\n")
        return
    registries = [record.address.name for record in list_records(directory.records, "registry")]
    session = open_session(None, name)
    with locked(session, "destroy", lock_timeout):
        for last in (False, True):
            world = look(session, parallelism=parallelism)
            plan = plan_for(session, world, Mode.DESTROY)
            if output is Output.TEXT and (plan.pending or not last):
                sys.stdout.write(render_text(plan, width=width_of(sys.stdout), color=color_of(sys.stdout, no_color)))
                sys.stdout.flush()
            if plan.errors:
                raise CinderError(plan.errors)
            if not last:
                approve(f"Destroy cluster {name!r}, all of it?", auto_approve=auto_approve)
            if plan.pending:
                execute(session, plan, world, output=output, parallelism=parallelism)
            if not plan.unobserved:
                break
            # An API server that is down hides what lives in it. It goes with its control plane: look once more.
            if last:
                raise UnobservableError(plan.unobserved)
        if plan.held:
            hint = "take `protect` out of the spec's lifecycle, apply, and destroy again"
            raise PartialError([Diagnostic(f"{change.address} {change.reason}", hint=hint) for change in plan.held])
        # What an interrupted run left without a record lies in this directory too.
        stop_supervisor(directory, stop_components=True)
        remove_tree(directory.root, below=home().state)
    kept = [registry for registry in registries if home().registry(registry).data.is_dir()]
    for registry in kept:
        sys.stderr.write(f"kept: the content of registry {registry}, in {home().registry(registry).data}\n")
