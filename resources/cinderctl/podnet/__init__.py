"""The rootless pod network: which loopback address stands for which pod or node, and the API server's way there.

Belongs here: translating addresses and carrying bytes. Which pods listen where is the node agent's business, which
addresses a cluster has the host's.
"""
