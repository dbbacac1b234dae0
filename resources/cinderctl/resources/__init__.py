"""The resource kinds, one module each, and the catalog that turns a spec into declarations of them.

A kind touches the world only through the subsystems beside this package; kinds do not import each other: they meet
through addresses and outputs.
"""
