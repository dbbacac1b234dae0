"""The graph of resources as DOT (Graphviz) and as Mermaid, with what a plan would do to each.

The sign is part of the label, so a black-and-white print says the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from cinderctl.core.address import Address
from cinderctl.plans.model import Action

__all__ = ["render_dot", "render_mermaid"]

Edges = Mapping[Address, Collection[Address]]
Actions = Mapping[Address, Action]

# Fill and border, readable with black text on white and on dark pages.
_COLORS: Mapping[Action, tuple[str, str]] = {
    Action.CREATE: ("#d4f4dd", "#1a7f37"),
    Action.UPDATE: ("#fff3c4", "#9a6700"),
    Action.REPLACE: ("#ffe0d6", "#bc4c00"),
    Action.DELETE: ("#ffd7d9", "#cf222e"),
    Action.ADOPT: ("#d2f4f7", "#1b7c83"),
    Action.FORGET: ("#eaeef2", "#57606a"),
}


def render_dot(edges: Edges, actions: Actions | None = None) -> str:
    """`edges`: address → what it stands on. Arrows point to what is needed. Deterministic."""
    known = actions or {}
    lines = ["digraph cinderctl {", "  rankdir=BT;", '  node [shape=box, style="rounded,filled", fillcolor=white];']
    for address in _nodes(edges, known):
        fill = _COLORS.get(known.get(address, Action.NO_OP))
        paint = f', fillcolor="{fill[0]}", color="{fill[1]}"' if fill else ""
        lines.append(f"  {_quoted(str(address))} [label={_quoted(_label(address, known))}{paint}];")
    lines += [f"  {_quoted(str(address))} -> {_quoted(str(item))};" for address, item in _arrows(edges)]
    return "\n".join([*lines, "}"]) + "\n"


def render_mermaid(edges: Edges, actions: Actions | None = None) -> str:
    """As `render_dot`, for Markdown pages."""
    known = actions or {}
    ids = {address: f"n{index}" for index, address in enumerate(_nodes(edges, known))}
    lines = ["flowchart BT"]
    for address, name in ids.items():
        text = _label(address, known).replace("&", "&amp;").replace('"', "#quot;").replace("<", "&lt;")
        action = known.get(address, Action.NO_OP)
        mark = f":::{action.value}" if action in _COLORS else ""
        lines.append(f'  {name}["{text}"]{mark}')
    lines += [f"  {ids[address]} --> {ids[item]}" for address, item in _arrows(edges)]
    for action in _COLORS:
        if action in known.values():
            fill, border = _COLORS[action]
            lines.append(f"  classDef {action.value} fill:{fill},stroke:{border},color:#000")
    return "\n".join(lines) + "\n"


def _nodes(edges: Edges, actions: Actions) -> list[Address]:
    return sorted({*edges, *(item for needed in edges.values() for item in needed), *actions})


def _arrows(edges: Edges) -> Iterator[tuple[Address, Address]]:
    for address in sorted(edges):
        for item in sorted(edges[address]):
            yield address, item


def _label(address: Address, actions: Actions) -> str:
    action = actions.get(address, Action.NO_OP)
    return str(address) if action is Action.NO_OP else f"{action.symbol} {address}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
