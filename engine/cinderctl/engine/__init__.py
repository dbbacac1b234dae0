"""Decides and executes: the graph, the diff, the pure planner, the executor with its journal and lock.

Knows resource kinds only through the protocol in `kinds`, prints nothing, and touches the world only through kinds and
its own two files (journal, lock).
"""
