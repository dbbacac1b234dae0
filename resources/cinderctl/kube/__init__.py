"""Kubernetes API access: errors, endpoints, a synchronous client for kinds, an asyncio client for agents, the user's
kubeconfig.

Objects are plain JSON dictionaries both ways. What belongs here speaks the API machinery (paths, patches, watches,
managed fields); what an object means (nodes, pods, claims) belongs to whoever owns that object. Only
`client.from_kubeconfig` imports the `kubernetes` package, and only `aio` imports aiohttp, so that each process pays
for what it uses.
"""
