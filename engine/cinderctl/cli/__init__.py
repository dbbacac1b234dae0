"""The command line: the only place that reads the environment, prints, and knows both the engine and the kinds.

One thin module a command below `commands`; `wiring` puts the parts together, `console` speaks to people.
"""
