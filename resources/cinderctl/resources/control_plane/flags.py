"""Command lines of the upstream components. Pure: the same inputs give the same flags in the same order.

What the user may see and set is in the inputs (`args`); what follows from this host (ports, files) is added here, and
the user's word wins only where it cannot cut a component off from the others. Flag meanings: kubernetes.io component
reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COMPONENTS", "Layout", "Ports", "command_line", "default_args", "owned_flags"]

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports, chosen once per cluster."""

    api_server: int
    etcd_client: int
    etcd_peer: int
    controller_manager: int
    scheduler: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a cluster keeps what the components read and write."""

    pki: Path
    kubeconfigs: Path
    etcd: Path
    egress_config: Path


def default_args(*, pod_cidr: str, service_cidr: str, cluster_name: str) -> dict[str, dict[str, str]]:
    """What the components run with unless the spec says otherwise; shown in plans, so no path and no port in it."""
    return {
        "etcd": {
            "auto-compaction-retention": "1",
            # A member alone still waits for up to this long (ms) before it elects itself; there is nobody to wait for.
            "election-timeout": "100",
            "heartbeat-interval": "20",
            "snapshot-count": "10000",
        },
        "kube-apiserver": {
            "authorization-mode": "Node,RBAC",
            "allow-privileged": "true",
            "enable-admission-plugins": "NodeRestriction",
            "enable-aggregator-routing": "true",
            "enable-bootstrap-token-auth": "true",
            # No kube-proxy and no node network here: nothing would use the `kubernetes` endpoints of the reconciler.
            "endpoint-reconciler-type": "none",
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-cluster-ip-range": service_cidr,
        },
        "kube-controller-manager": {
            "cluster-name": cluster_name,
            "cluster-cidr": pod_cidr,
            "controllers": "*,bootstrapsigner,tokencleaner",
            # The default client limits (20 qps) make the first start take 5 s longer than the rest of the cluster.
            "kube-api-burst": "4000",
            "kube-api-qps": "2000",
            "leader-elect": "false",
            "service-cluster-ip-range": service_cidr,
            "use-service-account-credentials": "true",
        },
        "kube-scheduler": {
            "kube-api-burst": "4000",
            "kube-api-qps": "2000",
            "leader-elect": "false",
        },
    }


def owned_flags(component: str, layout: Layout, ports: Ports) -> dict[str, str]:
    """Flags that tie a component to this cluster's ports, keys and directories. Not for the user to set."""
    pki = layout.pki
    if component == "etcd":
        client, peer = f"https://127.0.0.1:{ports.etcd_client}", f"https://127.0.0.1:{ports.etcd_peer}"
        return {
            "name": "default",
            "data-dir": str(layout.etcd),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "cert-file": str(pki / "etcd-server.crt"),
            "key-file": str(pki / "etcd-server.key"),
            "client-cert-auth": "true",
            "trusted-ca-file": str(pki / "etcd-ca.crt"),
            "peer-cert-file": str(pki / "etcd-server.crt"),
            "peer-key-file": str(pki / "etcd-server.key"),
            "peer-client-cert-auth": "true",
            "peer-trusted-ca-file": str(pki / "etcd-ca.crt"),
        }
    if component == "kube-apiserver":
        return {
            "advertise-address": "127.0.0.1",
            "bind-address": "127.0.0.1",
            "secure-port": str(ports.api_server),
            "client-ca-file": str(pki / "ca.crt"),
            "tls-cert-file": str(pki / "apiserver.crt"),
            "tls-private-key-file": str(pki / "apiserver.key"),
            "etcd-servers": f"https://127.0.0.1:{ports.etcd_client}",
            "etcd-cafile": str(pki / "etcd-ca.crt"),
            "etcd-certfile": str(pki / "apiserver-etcd-client.crt"),
            "etcd-keyfile": str(pki / "apiserver-etcd-client.key"),
            "egress-selector-config-file": str(layout.egress_config),
            "kubelet-certificate-authority": str(pki / "ca.crt"),
            "kubelet-client-certificate": str(pki / "apiserver-kubelet-client.crt"),
            "kubelet-client-key": str(pki / "apiserver-kubelet-client.key"),
            "kubelet-preferred-address-types": "InternalIP,Hostname",
            "proxy-client-cert-file": str(pki / "front-proxy-client.crt"),
            "proxy-client-key-file": str(pki / "front-proxy-client.key"),
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-client-ca-file": str(pki / "front-proxy-ca.crt"),
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-username-headers": "X-Remote-User",
            "service-account-key-file": str(pki / "service-account.pub"),
            "service-account-signing-key-file": str(pki / "service-account.key"),
        }
    kubeconfig = str(layout.kubeconfigs / f"{component.removeprefix('kube-')}.conf")
    common = {
        "bind-address": "127.0.0.1",
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "tls-cert-file": str(pki / f"{component.removeprefix('kube-')}-server.crt"),
        "tls-private-key-file": str(pki / f"{component.removeprefix('kube-')}-server.key"),
    }
    if component == "kube-scheduler":
        return common | {"secure-port": str(ports.scheduler)}
    return common | {
        "secure-port": str(ports.controller_manager),
        "client-ca-file": str(pki / "ca.crt"),
        "requestheader-client-ca-file": str(pki / "front-proxy-ca.crt"),
        "cluster-signing-cert-file": str(pki / "ca.crt"),
        "cluster-signing-key-file": str(pki / "ca.key"),
        "root-ca-file": str(pki / "ca.crt"),
        "service-account-private-key-file": str(pki / "service-account.key"),
    }


def command_line(program: str, component: str, args: Mapping[str, str], layout: Layout, ports: Ports) -> list[str]:
    """The full argv: the user's and default flags, then those this host decides, each `--name=value`, sorted."""
    flags = dict(args) | owned_flags(component, layout, ports)
    return [program, *(f"--{name}={value}" for name, value in sorted(flags.items()))]
