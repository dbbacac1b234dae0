"""From the spec to declarations: which resources a cluster consists of on the process provider, and what stands on
what.

Pure: no file is read and nothing is asked of the world. Edges are few and true ("cannot exist without"); a reference to
another resource's output is an edge by itself.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.digest import sha256_of
from cinderctl.core.values import Ref, Secret
from cinderctl.engine.kinds import Declaration, Lifecycle
from cinderctl.kube.resources import BUILTIN
from cinderctl.localpath.provisioner import storage_class
from cinderctl.resources.artifact import ArtifactInputs
from cinderctl.resources.binaries import BinariesInputs
from cinderctl.resources.certificate import CertificateInputs
from cinderctl.resources.cni import CniInputs
from cinderctl.resources.command import CommandInputs
from cinderctl.resources.control_plane.flags import default_args
from cinderctl.resources.control_plane.process import ControlPlaneInputs
from cinderctl.resources.file import FileInputs
from cinderctl.resources.kubeconfig import KubeconfigInputs
from cinderctl.resources.manifest import ManifestInputs
from cinderctl.resources.registry import RegistryInputs
from cinderctl.resources.registry_hosting import RegistryHostingInputs
from cinderctl.resources.registry_mirror import RegistryMirrorInputs
from cinderctl.resources.storage_class import StorageClassInputs
from cinderctl.resources.wasm_node import WasmNodeInputs
from cinderctl.spec.v1alpha1 import ClusterConfiguration

__all__ = ["KUBERNETES_BINARIES", "Material", "declare", "manifest_address"]

KUBERNETES_BINARIES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
_DOMAIN = "cluster.local"
_POLICY = "audit-policy.json"


@dataclass(frozen=True, slots=True)
class Material:
    """What the spec names and the loader has read: files' bytes, Kubernetes objects, modules' digests, and where the
    spec says a thing. `files`: node path → bytes. `objects`: (object, source). `modules`: artifact name → (absolute
    path, digest or "" when the file is yet to be built, absolute build directory)."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    objects: Sequence[tuple[Mapping[str, Any], str]] = ()
    modules: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    binaries_directory: str = ""
    kubeconfig_path: str = ""
    source: Callable[[Sequence[str | int]], str] = lambda _path: ""


def manifest_address(item: Mapping[str, Any]) -> Address:
    """`manifest.configmap/default/settings`; the group is part of it for kinds outside the core."""
    group = str(item["apiVersion"]).rpartition("/")[0]
    kind = str(item["kind"]).lower() + (f".{group}" if "." in group else "")
    namespace = item["metadata"].get("namespace")
    return Address("manifest", "/".join(filter(None, [kind, namespace, str(item["metadata"]["name"])])))


def declare(config: ClusterConfiguration, material: Material) -> list[Declaration]:
    """Every resource of the cluster, in no particular order."""
    return [_with_lifecycle(config, declaration) for declaration in _Catalog(config, material).all()]


def _with_lifecycle(config: ClusterConfiguration, declaration: Declaration) -> Declaration:
    rule = config.lifecycle_of(str(declaration.address))
    return Declaration(
        declaration.address,
        declaration.inputs,
        declaration.depends_on,
        declaration.source,
        Lifecycle(protect=rule.protect, ignore=tuple(rule.ignore)),
    )


class _Catalog:
    """The addresses that several declarations share, worked out once."""

    def __init__(self, config: ClusterConfiguration, material: Material) -> None:
        self.config = config
        self.material = material
        self.name = config.name
        plane = config.control_plane_configuration
        self.pod_cidr, self.service_cidr = plane.pod_subnet, plane.service_subnet
        self.binaries = Address("binaries", "kubernetes")
        self.cni = Address("cni", "loopback")
        self.control_plane = Address("control_plane", self.name)
        self.registry = Address("registry", config.local_registry_name)
        self.registry_binaries = Address("binaries", "registry")

    def all(self) -> Iterator[Declaration]:
        yield from self._binaries()
        yield from self._certificates()
        yield from self._control_plane()
        yield from self._registry()
        yield from self._rbac()
        yield from self._wasm_nodes()
        yield from self._storage()
        yield from self._workloads()
        yield from self._commands()

    def _source(self, *path: str | int) -> str:
        return str(self.material.source(path))

    def _binaries(self) -> Iterator[Declaration]:
        version, directory = self.config.kubernetes_version, self.material.binaries_directory
        yield Declaration(
            self.binaries,
            BinariesInputs(kubernetes_version=version, names=KUBERNETES_BINARIES, directory=directory),
            source=self._source("kubernetesVersion"),
        )
        if self.config.registry_enabled:
            # On its own, so that the control plane does not wait for the registry's download or build.
            yield Declaration(
                self.registry_binaries,
                BinariesInputs(kubernetes_version=version, names=("registry",), directory=directory),
                source=self._source("featureGates", "LocalRegistry"),
            )

    def _certificates(self) -> Iterator[Declaration]:
        settings = self.config.certificates
        plane = self.config.control_plane_configuration
        api_names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{_DOMAIN}",
            "localhost",
        ]
        api_ips = [str(ipaddress.ip_network(self.service_cidr.split(",")[0])[1]), "127.0.0.1"]
        for san in plane.kube_api_server.extra_sans:
            (api_ips if _is_ip(san) else api_names).append(san)
        loopback = {"dns_names": ("localhost",), "ip_addresses": ("127.0.0.1",)}
        certificates: dict[str, dict[str, Any]] = {
            "ca": {"usage": "ca", "common_name": "kubernetes"},
            "front-proxy-ca": {"usage": "ca", "common_name": "front-proxy-ca"},
            "etcd-ca": {"usage": "ca", "common_name": "etcd-ca"},
            "service-account": {"usage": "key"},
            "apiserver": {
                "usage": "server",
                "common_name": "kube-apiserver",
                "dns_names": tuple(dict.fromkeys(api_names)),
                "ip_addresses": tuple(dict.fromkeys(api_ips)),
            },
            "apiserver-kubelet-client": {"usage": "client", "common_name": "kube-apiserver-kubelet-client"},
            "apiserver-etcd-client": {
                "usage": "client",
                "common_name": "kube-apiserver-etcd-client",
                "signer": "etcd-ca",
            },
            "front-proxy-client": {"usage": "client", "common_name": "front-proxy-client", "signer": "front-proxy-ca"},
            "etcd-server": {"usage": "peer", "common_name": "etcd", "signer": "etcd-ca", **loopback},
            "controller-manager": {"usage": "client", "common_name": "system:kube-controller-manager"},
            "controller-manager-server": {"usage": "server", "common_name": "kube-controller-manager", **loopback},
            "scheduler": {"usage": "client", "common_name": "system:kube-scheduler"},
            "scheduler-server": {"usage": "server", "common_name": "kube-scheduler", **loopback},
            "admin": {"usage": "client", "common_name": "kubernetes-admin", "organizations": ("system:masters",)},
        }
        for name, wanted in certificates.items():
            authority = wanted["usage"] == "ca"
            signer = "" if wanted["usage"] in {"ca", "key"} else wanted.get("signer", "ca")
            named: dict[str, Any] = {**wanted, "signer": signer}
            inputs = CertificateInputs(
                **named,
                algorithm=settings.algorithm,
                validity_days=settings.ca_validity_days if authority else settings.validity_days,
                renew_before_days=settings.renew_before_days,
            )
            depends_on = (Address("certificate", signer),) if signer else ()
            yield Declaration(Address("certificate", name), inputs, depends_on, self._source("certificates"))

    def _control_plane(self) -> Iterator[Declaration]:
        plane = self.config.control_plane_configuration
        yield Declaration(
            self.cni, CniInputs(pod_cidr=self.pod_cidr), source=self._source("controlPlaneConfiguration", "podSubnet")
        )
        components = default_args(pod_cidr=self.pod_cidr, service_cidr=self.service_cidr, cluster_name=self.name)
        asked = {
            "kube-apiserver": plane.kube_api_server,
            "kube-controller-manager": plane.kube_controller_manager,
            "kube-scheduler": plane.kube_scheduler,
        }
        for name, component in asked.items():
            components[name] |= {flag: str(value) for flag, value in component.extra_args.items()}
            if component.feature_gates:
                gates = sorted(component.feature_gates.items())
                components[name]["feature-gates"] = ",".join(f"{gate}={str(on).lower()}" for gate, on in gates)
        files: dict[str, Any] = {}
        if plane.kube_api_server.audit_policy:
            files[_POLICY] = plane.kube_api_server.audit_policy
            components["kube-apiserver"]["audit-policy-file"] = "{config}/" + _POLICY
            components["kube-apiserver"].setdefault("audit-log-path", "{logs}/audit.log")
        running = {"state": "ready", "unexpected_exits": 0}
        names = ("ca", "front-proxy-ca", "etcd-ca", "service-account", "apiserver", "apiserver-kubelet-client",
                 "apiserver-etcd-client", "front-proxy-client", "etcd-server", "controller-manager",
                 "controller-manager-server", "scheduler", "scheduler-server", "admin")  # fmt: skip
        before = (Address("command", "pre"),) if self.config.pre_crit_commands else ()
        yield Declaration(
            self.control_plane,
            ControlPlaneInputs(
                version=self.config.kubernetes_version,
                programs=Ref(self.binaries, "control_plane"),
                service_cidr=self.service_cidr,
                api_port=plane.kube_api_server.bind_port or 6443,
                components={name: {"args": args, **running} for name, args in components.items()},
                files=files,
                egress_config=Ref(self.cni, "egress_config"),
            ),
            tuple(Address("certificate", name) for name in names) + before,
            self._source("controlPlaneConfiguration"),
        )
        kubeconfig = self.config.kubeconfig
        yield Declaration(
            Address("kubeconfig", self.name),
            KubeconfigInputs(
                context=self.config.context_name,
                namespace=kubeconfig.namespace,
                set_current=kubeconfig.set_current,
                path=self.material.kubeconfig_path,
                server=Ref(self.control_plane, "server"),
                ca_fingerprint=Ref(Address("certificate", "ca"), "fingerprint"),
                client_fingerprint=Ref(Address("certificate", "admin"), "fingerprint"),
            ),
            source=self._source("kubeconfig"),
        )

    def _registry(self) -> Iterator[Declaration]:
        config = self.config
        mirrors: dict[str, tuple[tuple[str, ...], bool]] = {}
        if config.registry_enabled:
            port = config.local_registry_port
            yield Declaration(
                self.registry,
                RegistryInputs(
                    program=Ref(self.registry_binaries, "registry"), port=port, delete_data=config.registry.delete_data
                ),
                source=self._source("localRegistryPort"),
            )
            yield Declaration(
                Address("registry_hosting", "local-registry-hosting"),
                RegistryHostingInputs(
                    host=f"localhost:{port}",
                    hostFromContainerRuntime=config.local_registry,
                    hostFromClusterNetwork=config.local_registry,
                ),
                (self.control_plane, self.registry),
                self._source("featureGates", "LocalRegistry"),
            )
            mirrors[config.local_registry] = ((f"http://localhost:{port}",), True)
        for host, endpoints in config.registry_mirrors.items():
            mirrors[host] = (tuple(endpoints), False)
        for host, (endpoints, exclusive) in mirrors.items():
            yield Declaration(
                Address("registry_mirror", host),
                RegistryMirrorInputs(endpoints=endpoints, exclusive=exclusive),
                source=self._source("registryMirrors", host),
            )

    def _rbac(self) -> Iterator[Declaration]:
        """What lets nodes join and the API server talk to them (as kubeadm's bootstrap phase)."""
        if not self.config.effective_wasm_nodes:
            return
        bindings = {
            "cinderctl:kubelet-api-admin": (
                "system:kubelet-api-admin",
                {"kind": "User", "name": "kube-apiserver-kubelet-client"},
            ),
            "cinderctl:node-bootstrapper": (
                "system:node-bootstrapper",
                {"kind": "Group", "name": "system:bootstrappers:cinderctl:wasm-nodes"},
            ),
            "cinderctl:node-autoapprove-certificate-rotation": (
                "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
                {"kind": "Group", "name": "system:nodes"},
            ),
        }
        for name, (role, subject) in bindings.items():
            binding = {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", **subject}],
            }
            yield Declaration(
                Address("manifest", f"clusterrolebinding/{name}"),
                ManifestInputs(object=binding),
                (self.control_plane,),
                self._source("wasmNodes"),
            )

    def _wasm_nodes(self) -> Iterator[Declaration]:
        bootstrapper = Address("manifest", "clusterrolebinding/cinderctl:node-bootstrapper")
        reader = Address("manifest", "clusterrolebinding/cinderctl:kubelet-api-admin")
        network = ipaddress.ip_network(self.pod_cidr.split(",")[0])
        # A sixteenth of the range for each node's pods; the last one, from its end, for the nodes themselves.
        ranges = list(network.subnets(prefixlen_diff=4))
        host_base = int(network.network_address) + (network.num_addresses - 256)
        for index, node in enumerate(self.config.effective_wasm_nodes):
            # Krustlet had NoExecute alone until 0.6; both together keep container pods off from the start.
            arch_taints = [
                {"key": "kubernetes.io/arch", "value": node.arch, "effect": effect}
                for effect in ("NoExecute", "NoSchedule")
            ]
            yield Declaration(
                Address("wasm_node", str(node.name)),
                WasmNodeInputs(
                    arch=node.arch,
                    port=int(node.port or 0),
                    node_ip=str(ipaddress.ip_address(host_base + 1 + index)),
                    pod_cidr=str(ranges[index]),
                    cluster_cidr=str(network),
                    block=Ref(self.cni, "block"),
                    server=Ref(self.control_plane, "server"),
                    ca_file=Ref(self.control_plane, "ca_file"),
                    cluster_domain=_DOMAIN,
                    labels=dict(node.labels),
                    annotations=dict(node.annotations),
                    taints=(*arch_taints, *(taint.model_dump(exclude_defaults=True) for taint in node.taints)),
                    max_pods=node.max_pods,
                    allow_local_modules=node.allow_local_modules,
                    restart_bare_pods=node.restart_bare_pods,
                    host_path_prefixes=tuple(node.host_path_prefixes),
                ),
                (bootstrapper, reader),
                self._source("wasmNodes", index),
            )

    def _storage(self) -> Iterator[Declaration]:
        if self.config.storage_class.enabled:
            name = self.config.storage_class.name
            yield Declaration(
                Address("storage_class", name),
                StorageClassInputs(object=storage_class(name)),
                (self.control_plane,),
                self._source("storageClass"),
            )

    def _workloads(self) -> Iterator[Declaration]:
        for file in self.config.files:
            digest = sha256_of(self.material.files[file.path])
            yield Declaration(
                Address("file", file.path),
                FileInputs(path=file.path, digest=digest, permissions=f"{file.mode:04o}"),
                source=self._source("files"),
            )
        for artifact in self.config.artifacts:
            path, digest, directory = self.material.modules[artifact.name]
            local = artifact.reference.startswith(f"localhost:{self.config.local_registry_port}/")
            yield Declaration(
                Address("artifact", artifact.name),
                ArtifactInputs(
                    reference=artifact.reference,
                    path=path,
                    digest=digest,
                    format=artifact.format,
                    build=tuple(artifact.build.command) if artifact.build else (),
                    directory=directory,
                ),
                (self.registry,) if self.config.registry_enabled and local else (),
                self._source("artifacts"),
            )
        objects = [
            (_with_namespace(item, self.config.kubeconfig.namespace), source) for item, source in self.material.objects
        ]
        declared = {manifest_address(item) for item, _ in objects}
        for item, source in objects:
            yield Declaration(
                manifest_address(item),
                ManifestInputs(object=_with_secrets(item)),
                (self.control_plane, *self._stands_on(item, declared)),
                source,
            )

    def _stands_on(self, item: Mapping[str, Any], declared: set[Address]) -> Iterator[Address]:
        """The namespace an object lies in, and the custom kind it is of, when this spec declares them."""
        namespace = item["metadata"].get("namespace")
        if namespace and (address := Address("manifest", f"namespace/{namespace}")) in declared:
            yield address
        group = str(item["apiVersion"]).rpartition("/")[0]
        for address in declared:
            crd = address.name.startswith("customresourcedefinition.") and group and address.name.endswith(f".{group}")
            if crd and item["kind"] != "CustomResourceDefinition":
                yield address

    def _commands(self) -> Iterator[Declaration]:
        directory = Ref(self.binaries, "directory")
        if self.config.pre_crit_commands:
            yield Declaration(
                Address("command", "pre"),
                CommandInputs(commands=tuple(self.config.pre_crit_commands), path=directory),
                tuple(Address("file", item.path) for item in self.config.files),
                self._source("preCritCommands"),
            )
        if self.config.post_crit_commands:
            # Commands may use anything the cluster has, so they come after all of it.
            waits_for = [Address("kubeconfig", self.name)]
            waits_for += [Address("wasm_node", str(node.name)) for node in self.config.effective_wasm_nodes]
            waits_for += [Address("file", item.path) for item in self.config.files]
            waits_for += [Address("artifact", artifact.name) for artifact in self.config.artifacts]
            waits_for += [
                manifest_address(_with_namespace(item, self.config.kubeconfig.namespace))
                for item, _ in self.material.objects
            ]
            if self.config.storage_class.enabled:
                waits_for.append(Address("storage_class", self.config.storage_class.name))
            yield Declaration(
                Address("command", "post"),
                CommandInputs(
                    commands=tuple(self.config.post_crit_commands),
                    trigger=Ref(self.control_plane, "server"),
                    path=directory,
                ),
                tuple(waits_for),
                self._source("postCritCommands"),
            )


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _with_namespace(item: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """A namespaced object that names no namespace lies in the context's; kinds unknown here are left as they are."""
    metadata = dict(item["metadata"])
    known = BUILTIN.get(str(item["apiVersion"]), {}).get(str(item["kind"]))
    if known is not None and known[1]:
        metadata.setdefault("namespace", namespace)
    return {**item, "metadata": metadata}


def _with_secrets(item: Mapping[str, Any]) -> dict[str, Any]:
    """Data of a Secret are secrets; `stringData`, which the server never gives back, becomes `data`."""
    if item.get("apiVersion") != "v1" or item.get("kind") != "Secret":
        return dict(item)
    kept = {key: value for key, value in item.items() if key != "stringData"}
    data = {str(key): str(value) for key, value in (item.get("data") or {}).items()}
    data |= {
        str(key): base64.b64encode(str(value).encode()).decode()
        for key, value in (item.get("stringData") or {}).items()
    }
    return {**kept, "data": {key: Secret(value) for key, value in data.items()}}
