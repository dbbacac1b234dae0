"""Decides and executes: the graph, the diff, the pure planner, the executor with its journal and lock.

Knows resource kinds only through the protocol in `kinds`, prints nothing, and touches the world only through kinds and
its own two files (journal, lock). Names are imported from the modules that define them, so that nobody pays for more
than he uses: `observe.observe_world` → `planner.make_plan` → `executor.apply_plan`, with `journal.Journal`, `lock.Lock`
and `steps.Interrupt` beside them.
"""
