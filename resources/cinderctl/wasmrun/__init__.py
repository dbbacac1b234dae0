"""Running WebAssembly modules: the runtime process of a wasi node and the client that speaks to it.

Belongs here: the protocol and client (light, for the node agent), the zygote that forks shards, the shards that run
guests as threads, the WASI host functions we own, CRI log files, the cache of compiled modules, durable outcomes. Does
not belong here: pods, Kubernetes, images and registries, anything that decides whether a run should happen again.
"""
