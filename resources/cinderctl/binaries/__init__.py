"""Upstream's binaries: which there are, where they are found, downloaded from, or built with.

Belongs here: the catalogue, the shared cache, downloads with checksums, builds from Go modules, their locks.
Does not: starting a binary, its flags, node images.
"""
