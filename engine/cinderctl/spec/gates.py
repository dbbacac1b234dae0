"""cinder's feature gates and what they mean here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

__all__ = ["GATES", "SWITCHABLE", "Gate", "is_on"]

Gate: TypeAlias = Literal["LocalRegistry", "Krustlet", "MachineAPI", "FixCgroupMounts"]

# All of cinder's gates are alpha. `AllAlpha` and `AllBeta` come with Kubernetes' gate machinery, which cinder used.
GATES: tuple[Gate, ...] = get_args(Gate)
SWITCHABLE: tuple[str, ...] = (*GATES, "AllAlpha", "AllBeta")


def is_on(gates: Mapping[str, bool], gate: Gate) -> bool:
    """A gate set by name, else by `AllAlpha`, else off."""
    return gates.get(gate, gates.get("AllAlpha", False))
