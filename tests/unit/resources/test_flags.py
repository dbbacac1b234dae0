"""Command lines of the control plane, as they are started."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinderctl.resources.control_plane.flags import COMPONENTS, Layout, Ports, command_line, default_args, owned_flags

LAYOUT = Layout(Path("/c/pki"), Path("/c/kubeconfigs"), Path("/c/etcd"), Path("/c/egress.json"))
PORTS = Ports(api_server=6443, etcd_client=2379, etcd_peer=2380, controller_manager=10257, scheduler=10259)
ARGS = default_args(pod_cidr="10.244.0.0/16", service_cidr="10.96.0.0/16", cluster_name="cinder")

GOLDEN = {
    "etcd": """\
--advertise-client-urls=https://127.0.0.1:2379
--auto-compaction-retention=1
--cert-file=/c/pki/etcd-server.crt
--client-cert-auth=true
--data-dir=/c/etcd
--election-timeout=100
--heartbeat-interval=20
--initial-advertise-peer-urls=https://127.0.0.1:2380
--initial-cluster=default=https://127.0.0.1:2380
--key-file=/c/pki/etcd-server.key
--listen-client-urls=https://127.0.0.1:2379
--listen-peer-urls=https://127.0.0.1:2380
--name=default
--peer-cert-file=/c/pki/etcd-server.crt
--peer-client-cert-auth=true
--peer-key-file=/c/pki/etcd-server.key
--peer-trusted-ca-file=/c/pki/etcd-ca.crt
--snapshot-count=10000
--trusted-ca-file=/c/pki/etcd-ca.crt
""",
    "kube-apiserver": """\
--advertise-address=127.0.0.1
--allow-privileged=true
--authorization-mode=Node,RBAC
--bind-address=127.0.0.1
--client-ca-file=/c/pki/ca.crt
--egress-selector-config-file=/c/egress.json
--enable-admission-plugins=NodeRestriction
--enable-aggregator-routing=true
--enable-bootstrap-token-auth=true
--endpoint-reconciler-type=none
--etcd-cafile=/c/pki/etcd-ca.crt
--etcd-certfile=/c/pki/apiserver-etcd-client.crt
--etcd-keyfile=/c/pki/apiserver-etcd-client.key
--etcd-servers=https://127.0.0.1:2379
--kubelet-certificate-authority=/c/pki/ca.crt
--kubelet-client-certificate=/c/pki/apiserver-kubelet-client.crt
--kubelet-client-key=/c/pki/apiserver-kubelet-client.key
--kubelet-preferred-address-types=InternalIP,Hostname
--proxy-client-cert-file=/c/pki/front-proxy-client.crt
--proxy-client-key-file=/c/pki/front-proxy-client.key
--requestheader-allowed-names=front-proxy-client
--requestheader-client-ca-file=/c/pki/front-proxy-ca.crt
--requestheader-extra-headers-prefix=X-Remote-Extra-
--requestheader-group-headers=X-Remote-Group
--requestheader-username-headers=X-Remote-User
--secure-port=6443
--service-account-issuer=https://kubernetes.default.svc.cluster.local
--service-account-key-file=/c/pki/service-account.pub
--service-account-signing-key-file=/c/pki/service-account.key
--service-cluster-ip-range=10.96.0.0/16
--tls-cert-file=/c/pki/apiserver.crt
--tls-private-key-file=/c/pki/apiserver.key
""",
    "kube-controller-manager": """\
--authentication-kubeconfig=/c/kubeconfigs/controller-manager.conf
--authorization-kubeconfig=/c/kubeconfigs/controller-manager.conf
--bind-address=127.0.0.1
--client-ca-file=/c/pki/ca.crt
--cluster-cidr=10.244.0.0/16
--cluster-name=cinder
--cluster-signing-cert-file=/c/pki/ca.crt
--cluster-signing-key-file=/c/pki/ca.key
--controllers=*,bootstrapsigner,tokencleaner
--kube-api-burst=4000
--kube-api-qps=2000
--kubeconfig=/c/kubeconfigs/controller-manager.conf
--leader-elect=false
--requestheader-client-ca-file=/c/pki/front-proxy-ca.crt
--root-ca-file=/c/pki/ca.crt
--secure-port=10257
--service-account-private-key-file=/c/pki/service-account.key
--service-cluster-ip-range=10.96.0.0/16
--tls-cert-file=/c/pki/controller-manager-server.crt
--tls-private-key-file=/c/pki/controller-manager-server.key
--use-service-account-credentials=true
""",
    "kube-scheduler": """\
--authentication-kubeconfig=/c/kubeconfigs/scheduler.conf
--authorization-kubeconfig=/c/kubeconfigs/scheduler.conf
--bind-address=127.0.0.1
--kube-api-burst=4000
--kube-api-qps=2000
--kubeconfig=/c/kubeconfigs/scheduler.conf
--leader-elect=false
--secure-port=10259
--tls-cert-file=/c/pki/scheduler-server.crt
--tls-private-key-file=/c/pki/scheduler-server.key
""",
}


@pytest.mark.parametrize("component", COMPONENTS)
def test_command_lines(component):
    line = command_line(f"/b/{component}", component, ARGS[component], LAYOUT, PORTS)
    assert line[0] == f"/b/{component}"
    assert "".join(f"{flag}\n" for flag in line[1:]) == GOLDEN[component]


def test_a_users_flag_is_added_and_overrides_a_default():
    args = ARGS["kube-scheduler"] | {"v": "4", "leader-elect": "true"}
    line = command_line("s", "kube-scheduler", args, LAYOUT, PORTS)
    assert "--v=4" in line
    assert "--leader-elect=true" in line
    assert "--leader-elect=false" not in line


@pytest.mark.parametrize("component", COMPONENTS)
def test_no_user_cuts_a_component_off_from_the_others(component):
    asked = dict.fromkeys(owned_flags(component, LAYOUT, PORTS), "mine")
    line = command_line("p", component, asked, LAYOUT, PORTS)
    assert not [flag for flag in line if flag.endswith("=mine")]


@pytest.mark.parametrize("component", COMPONENTS)
def test_defaults_hold_neither_paths_nor_ports_of_this_host(component):
    """They are shown in plans, which must read the same everywhere."""
    assert not set(ARGS[component]) & set(owned_flags(component, LAYOUT, PORTS))
    assert not [value for value in ARGS[component].values() if value.startswith("/") or "127.0.0.1" in value]
