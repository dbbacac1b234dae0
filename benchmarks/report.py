"""Numbers as a page for people."""

from __future__ import annotations

import math
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Row", "machine", "p99", "spread", "table"]


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure. `value` is what the target is held against; `target` None: for information."""

    what: str
    shown: str
    value: float
    target: float | None = None
    target_shown: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.value <= self.target


def spread(values: Sequence[float], unit: str, digits: int = 2) -> str:
    """`4.51 s (4.40-4.62)`: the median, and the least and the most."""
    middle = f"{statistics.median(values):.{digits}f} {unit}"
    return f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def p99(values: Sequence[float]) -> float:
    """By nearest rank: with fewer than 100 values, the greatest."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def table(rows: Sequence[Row]) -> str:
    lines = ["| measured | median (least–most) | target | |", "|---|---|---|---|"]
    for row in rows:
        verdict = {None: "", True: "met", False: "**not met**"}[row.met]
        lines.append(f"| {row.what} | {row.shown} | {row.target_shown} | {verdict} |")
    return "\n".join(lines)


def machine() -> list[tuple[str, str]]:
    """What the numbers depend on, without names or paths of this machine."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        system = ""
    return [
        ("Processor", f"{model}, {os.cpu_count()} logical cores"),
        ("Memory", f"{memory:.0f} GiB"),
        ("System", ", ".join(filter(None, [system, f"{platform.system()} {platform.release().partition('-')[0]}"]))),
        ("Python", f"{platform.python_version()} ({sys.implementation.name})"),
    ]
