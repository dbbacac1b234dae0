"""cinder's commands, as thin aliases, so that its users' fingers and scripts go on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from cinderctl.cli.options import Files, Name

__all__ = ["create", "delete", "export", "get"]

create = typer.Typer(help="create cluster: as apply, without a question.", no_args_is_help=True)
delete = typer.Typer(help="delete cluster: as destroy, without a question.", no_args_is_help=True)
get = typer.Typer(help="Clusters, nodes, kubeconfigs, addresses, images.", no_args_is_help=True)
export = typer.Typer(help="Write kubeconfig entries.", no_args_is_help=True)

ConfigFile = Annotated[
    str | None,
    typer.Option("--config", "-c", help="The spec; `-` is stdin. [default: built-in defaults]", metavar="FILE"),
]
_DEFAULT_SPEC = "apiVersion: cinder.crit.sh/v1alpha1\nkind: ClusterConfiguration\n"


@create.command("cluster")
def create_cluster(config: ConfigFile = None, name: Name = None) -> None:
    """Create a cluster from a spec, or a plain one without."""
    from cinderctl.cli.commands.apply import apply_spec
    from cinderctl.cli.wiring import load_spec, load_text

    loaded = load_spec([config], name) if config else load_text(_DEFAULT_SPEC, name)
    apply_spec(loaded, auto_approve=True)


@delete.command("cluster")
def delete_cluster(name: Name = None) -> None:
    """Delete a cluster and all that was made for it. No error when there is none."""
    from cinderctl.cli.commands.destroy import destroy_cluster

    destroy_cluster(name or "cinder", auto_approve=True)


@get.command("clusters")
def get_clusters() -> None:
    """One name a line."""
    from cinderctl.cli.wiring import home

    sys.stdout.write("".join(f"{name}\n" for name in home().clusters()))


@get.command("nodes")
def get_nodes(node: Annotated[str | None, typer.Argument()] = None, files: Files = None, name: Name = None) -> None:
    """Name and address of each node."""
    rows = [(found, address) for found, address in _nodes(files, name) if node in (None, found)]
    sys.stdout.write("".join(f"{found} {address}\n" for found, address in rows))
    sys.stdout.write(f"{len(rows)} node(s) found.\n")


@get.command("ip")
def get_ip(node: Annotated[str | None, typer.Argument()] = None, files: Files = None, name: Name = None) -> None:
    """The address of the control plane, or of one node."""
    from cinderctl.core.diagnostics import UsageError

    if node is None:
        sys.stdout.write("127.0.0.1\n")
        return
    found = dict(_nodes(files, name))
    if node not in found:
        raise UsageError(f"there is no node {node!r}", hint=f"there are: {', '.join(found) or 'none'}")
    sys.stdout.write(f"{found[node]}\n")


@get.command("kubeconfigs")
@get.command("kc", hidden=True)
def get_kubeconfigs(
    files: Files = None,
    name: Name = None,
    path: Annotated[bool, typer.Option("--path", help="Print where the file is, not what it says.")] = False,
) -> None:
    """The administrator's kubeconfig, complete in itself."""
    from cinderctl.cli.wiring import admin_kubeconfig, cluster_name

    file, content = admin_kubeconfig(cluster_name(files, name))
    sys.stdout.write(f"{file}\n" if path else json.dumps(content, indent=2) + "\n")


@get.command("images")
def get_images(files: Files = None, name: Name = None) -> None:
    """The images of the pods that run, one a line, sorted."""
    from cinderctl.cli.wiring import api_client, cluster_name

    pods = api_client(cluster_name(files, name)).list("/api/v1/pods")
    images = {str(container["image"]) for pod in pods for container in pod["spec"]["containers"]}
    sys.stdout.write("".join(f"{image}\n" for image in sorted(images)))


@export.command("kubeconfig")
@export.command("kc", hidden=True)
def export_kubeconfig(
    files: Files = None,
    name: Name = None,
    kubeconfig: Annotated[Path | None, typer.Option("--kubeconfig", help="File to merge into.", metavar="FILE")] = None,
) -> None:
    """Merge the cluster's entries into a kubeconfig and make its context the current one."""
    from cinderctl.cli.wiring import cluster_name, export_entries

    context = export_entries(cluster_name(files, name), kubeconfig)
    sys.stdout.write(f'Set kubectl context to "{context}"\n')


def _nodes(files: Files, name: Name) -> list[tuple[str, str]]:
    from cinderctl.cli.wiring import api_client, cluster_name

    nodes = api_client(cluster_name(files, name)).list("/api/v1/nodes")
    return sorted((str(node["metadata"]["name"]), _address(node)) for node in nodes)


def _address(node: dict[str, object]) -> str:
    status = node.get("status")
    addresses = status.get("addresses", []) if isinstance(status, dict) else []
    return next((str(one["address"]) for one in addresses if one["type"] == "InternalIP"), "-")
