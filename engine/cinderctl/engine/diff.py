"""Field changes between what is wanted and what is there, with three-way causes. The one module that imports deepdiff,
and only when nested values really differ: a plan without changes never pays for the import.

Comparison is left-scoped: only what the spec says is compared, so defaults that a server fills in are never drift.
A key that was applied last time and is wanted no more is a removal. Lists compare whole, unless their items are
dicts with distinct `name`s, which compare by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cinderctl.core.digest import canonical_json
from cinderctl.core.values import Ref
from cinderctl.engine.refs import refs_in, storable
from cinderctl.plans.model import Cause, FieldChange, path_text

__all__ = ["diff_inputs", "ignored_drift", "placed", "scoped", "value_at"]

Path = tuple[str | int, ...]
Pair = tuple[dict[str, Any], dict[str, Any]]


class _Missing:
    """Nothing there, as told apart from a null that is there."""

    def __bool__(self) -> bool:
        return False


_MISSING: Any = _Missing()


def diff_inputs(
    want: Mapping[str, Any],
    have: Mapping[str, Any],
    base: Mapping[str, Any] | None,
    *,
    declared: Mapping[str, Any] | None = None,
    replaces: frozenset[str] = frozenset(),
    ignore: Sequence[str] = (),
    changed_by: Mapping[str, str] | None = None,
) -> tuple[FieldChange, ...]:
    """What must change to get from `have` to `want`, in the order of the inputs.

    All three are plain JSON with secrets redacted; a `Ref` left in `want` is a value not known yet. An input that
    is not in `have` could not be observed and is compared with `base`, the inputs applied last (None when there is
    no record). `declared` is `want` before references were resolved. `ignore` are dotted paths whose drift is left
    alone; a change of the spec there still counts.
    """
    raw = declared if declared is not None else want
    last = base if base is not None else {}
    found: list[FieldChange] = []
    for name, wanted in want.items():
        before = last.get(name, _MISSING)
        there = have.get(name, before)
        if there is _MISSING and (base is None or not wanted):
            continue  # nothing known to compare with: taking over, or an input this record is too old to have
        for path in _changed_paths(name, wanted, there, before):
            cause = _cause(path, want, {name: there}, base, raw)
            if cause is Cause.WORLD and _ignored(path, ignore):
                continue
            after = _shown(value_at(want, path))
            found.append(
                FieldChange(
                    path=path,
                    before=_shown(value_at({name: there}, path)),
                    after=after,
                    cause=cause,
                    forces_replacement=name in replaces,
                    unknown_after=isinstance(after, Ref),
                    changed_by=_who(path, changed_by) if changed_by and cause in (Cause.WORLD, Cause.BOTH) else "",
                )
            )
    return tuple(found)


def value_at(value: Any, path: Path) -> Any:
    """The value at a path; items of a list are found by their `name`. A false marker when there is none."""
    for part in path:
        if isinstance(value, Mapping):
            value = value.get(part, _MISSING)
        elif isinstance(value, list):
            value = next((item for item in value if isinstance(item, Mapping) and item.get("name") == part), _MISSING)
        else:
            return _MISSING
    return value


def scoped(want: Mapping[str, Any], have: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """The leaves of `have` that `want` speaks of: what a decision about these inputs relies on."""
    for name, wanted in want.items():
        if name in have:
            yield from _leaves((name,), wanted, have[name])


def ignored_drift(
    want: Mapping[str, Any], have: Mapping[str, Any], ignore: Sequence[str], changing: Iterable[Path]
) -> Iterator[tuple[Path, Any]]:
    """What drifted below the paths to be left alone, as the world has it; fields that change anyway are not ignored."""
    planned = set(changing)
    for path, value in scoped(want, have):
        if _ignored(path, ignore) and path not in planned and not _same(value_at(want, path), value):
            yield path, value


def placed(value: Any, path: Path, new: Any) -> Any:
    """A copy of nested dicts and lists with `new` at `path`."""
    if not path:
        return new
    if isinstance(value, Mapping):
        return {**value, path[0]: placed(value.get(path[0], {}), path[1:], new)}
    return [placed(item, path[1:], new) if item.get("name") == path[0] else item for item in value]


def _leaves(path: Path, want: Any, have: Any) -> Iterator[tuple[Path, Any]]:
    inner, there = _by_name(want), _by_name(have)
    if inner is None or there is None:
        yield path, have
        return
    for key, item in inner.items():
        if key in there:
            yield from _leaves((*path, key), item, there[key])
        else:
            yield (*path, key), None


def _changed_paths(name: str, want: Any, have: Any, base: Any) -> Iterator[Path]:
    left, right = _scope_mapping({name: want}, {} if have is _MISSING else {name: have}, {name: base})
    if left == right:
        return
    if not isinstance(left.get(name), dict) or not isinstance(right.get(name), dict):
        yield (name,)
        return
    from deepdiff import DeepDiff  # noqa: PLC0415 - 0.1 s that a plan without nested changes need not pay

    # The threshold would report a whole dict as one change when few of its keys are shared.
    tree = DeepDiff(right[name], left[name], view="tree", threshold_to_diff_deeper=0)
    paths = {(name, *level.path(output_format="list")) for levels in tree.values() for level in levels}
    yield from sorted(paths, key=lambda path: [str(part) for part in path])


def _scope_mapping(want: Mapping[str, Any], have: Mapping[str, Any], base: Mapping[str, Any]) -> Pair:
    """Two dicts, of what is wanted and of the same part of what is there, every leaf a comparable text."""
    left: dict[str, Any] = {}
    right: dict[str, Any] = {}
    for key, wanted in want.items():
        there, before = have.get(key, _MISSING), base.get(key, _MISSING)
        if wanted is None:  # not said: a removal when it was said last time, else the server's business
            if before not in (None, _MISSING) and there not in (None, _MISSING):
                right[key] = _text(there)
            continue
        inner = _inner(wanted, there, before)
        if inner is None:
            left[key] = _text(wanted)
            if there is not _MISSING:
                right[key] = _text(there)
        else:
            left[key], right[key] = _scope_mapping(*inner)
    for key, before in base.items():
        if key not in want and before is not _MISSING and key in have and have[key] is not None:
            right[key] = _text(have[key])
    return left, right


def _inner(want: Any, have: Any, base: Any) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]] | None:
    """The three as mappings when they are to be compared by key; None when they compare whole."""
    nothing = have is None or have is _MISSING
    if not nothing and isinstance(want, list) != isinstance(have, list):
        return None
    wanted, there, before = _by_name(want), _by_name(have), _by_name(base)
    if isinstance(want, list) and not want and there:
        wanted = {}  # an empty list has no items to tell that they go by name
    if isinstance(have, list) and not have and wanted is not None:
        there = {}
    if wanted is None or (there is None and not nothing):
        return None
    return wanted, there or {}, before or {}


def _by_name(value: Any) -> Mapping[str, Any] | None:
    """A mapping as it is, a list of dicts with distinct names as a mapping by name, anything else None."""
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, list) or not value:
        return None
    named = {item["name"]: item for item in value if isinstance(item, Mapping) and isinstance(item.get("name"), str)}
    return named if len(named) == len(value) else None


def _text(value: Any) -> str:
    """A leaf as text in which 1, 1.0, "1" and true compare as JSON has them: the first two equal, the others not."""
    match value:
        case str():
            return f"s{value}"
        case bool() | None:
            return f"j{value}"
        case int():
            return f"n{value}"
        case float():
            return f"n{int(value)}" if value.is_integer() else f"n{value!r}"
        case Ref():
            return f"r{value}"
        case _:
            return f"j{canonical_json(storable(value))}"


def _cause(
    path: Path, want: Mapping[str, Any], have: Mapping[str, Any], base: Mapping[str, Any] | None, raw: Mapping[str, Any]
) -> Cause:
    if base is None:
        return Cause.SPEC
    wanted, there, before = (value_at(value, path) for value in (want, have, base))
    spec_moved, world_moved = not _same(wanted, before), not _same(there, before)
    if not spec_moved:
        return Cause.WORLD
    if any(refs_in(value_at(raw, path))):
        return Cause.DEPENDENCY
    return Cause.BOTH if world_moved else Cause.SPEC


def _same(one: Any, other: Any) -> bool:
    none = (None, _MISSING)
    return (one in none and other in none) if one in none or other in none else _text(one) == _text(other)


def _shown(value: Any) -> Any:
    return None if value is _MISSING else value


def _ignored(path: Path, ignore: Sequence[str]) -> bool:
    return any(text == item or text.startswith(f"{item}.") for item in ignore for text in _spellings(path))


def _spellings(path: Path) -> tuple[str, str]:
    """With parts that hold dots quoted, as we print them, and without."""
    return path_text(path), ".".join(map(str, path))


def _who(path: Path, changed_by: Mapping[str, str]) -> str:
    """Who changed this field: what is known of it, of what holds it, or of something in it."""
    for length in range(len(path), 0, -1):
        for text in _spellings(path[:length]):
            if text in changed_by:
                return changed_by[text]
    inside = tuple(f"{text}." for text in _spellings(path))
    return next((who for where, who in changed_by.items() if where.startswith(inside)), "")
