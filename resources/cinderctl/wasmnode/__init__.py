"""The node agent: a kubelet of our own that runs WebAssembly modules as pods of any Kubernetes cluster.

Belongs here: joining a cluster, the Node object, the life of pods, their volumes, images and logs, the kubelet API.
Does not belong here: running guests (`cinderctl.wasmrun`, another process), talking to registries (`cinderctl.oci`),
the Kubernetes client (`cinderctl.kube`). The agent stays small in memory: nothing here imports wasmtime, kubernetes,
pydantic or, outside the short-lived `keywork` child, cryptography.
"""
