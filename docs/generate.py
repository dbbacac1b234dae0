"""Writes the reference pages from the code they describe, so that they cannot say anything else.

`python docs/generate.py` writes docs/reference/{cli,spec,kinds,json}.md; with `--check` it writes nothing, names the
stale ones and exits with 1.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from cinderctl.cli.diagnostics import as_json
from cinderctl.cli.tree import app
from cinderctl.core import diagnostics
from cinderctl.core.address import Address
from cinderctl.core.diagnostics import CinderError, Diagnostic
from cinderctl.engine import events
from cinderctl.plans.drift import drift_of, drift_to_json
from cinderctl.plans.model import Action, Cause, Change, FieldChange, Mode, Plan
from cinderctl.plans.render_json import FORMAT_VERSION, plan_to_json
from cinderctl.resources import provider
from cinderctl.spec.v1alpha1 import ClusterConfiguration

REFERENCE = Path(__file__).resolve().parent / "reference"
_NOTE = "<!-- Written by docs/generate.py; edits are overwritten. -->\n"

EXIT_CODES = {
    0: "Done. For `drift` and `plan --detailed-exitcode`: nothing to change.",
    1: "Failed.",
    2: "`plan --detailed-exitcode`: changes pending. `drift`: drift found.",
    3: "Partly applied: some steps failed, others are done.",
    4: "Part of the world could not be observed.",
    5: "The saved plan is stale.",
    6: "Locked by another run.",
    64: "Usage error.",
    130: "Interrupted. It is safe to run the same command again.",
}

ENVIRONMENT = {
    "CINDERCTL_BINARIES": "A directory of yours with upstream's binaries, looked at first.",
    "KUBECONFIG": "The kubeconfig files to merge into, as kubectl reads it. Default: `~/.kube/config`.",
    "XDG_STATE_HOME": "Clusters live in `cinderctl/` below it. Default: `~/.local/state`.",
    "XDG_CACHE_HOME": "Binaries live in `cinderctl/` below it. Default: `~/.cache`.",
    "DOCKER_CONFIG": "Directory of the registry logins (`docker login`). Default: `~/.docker`.",
    "HTTPS_PROXY, HTTP_PROXY, NO_PROXY": "Proxies for downloads.",
    "NO_COLOR": "Not empty: no colour.",
    "CI": "Not empty: plain lines of progress, even on a terminal.",
}


def table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") or "–" for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def prose(text: str) -> str:
    """Text of the code as Markdown on one line: what is not in backticks is taken literally."""
    parts = " ".join(text.split()).split("`")
    parts[::2] = [part.replace("<", "&lt;").replace("*", "\\*") for part in parts[::2]]
    return "`".join(parts)


def code(value: Any) -> str:
    """A default as it is written in YAML's flow style; nothing for what says nothing."""
    if value is None or value in ("", (), [], {}):
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def paragraphs(docstring: str) -> str:
    """A docstring as Markdown, paragraph by paragraph."""
    return "\n\n".join(prose(part) for part in inspect.cleandoc(docstring).split("\n\n")) + "\n"


# --- cli.md


def cli_page() -> str:
    root = typer.main.get_command(app)
    undescribed = {
        error.exit_code
        for error in vars(diagnostics).values()
        if isinstance(error, type) and issubclass(error, CinderError)
    } - EXIT_CODES.keys()
    if undescribed:
        raise SystemExit(f"exit codes without a meaning: {sorted(undescribed)}")
    text = f"{_NOTE}# Command line\n\n{prose(root.help or '')}\n\n"
    text += (
        "Data goes to stdout, talk to stderr. Every command has `-h` and `--help`. `--debug`, anywhere on the line, "
        "shows where an error came from. `cinderctl --version` prints the version, `cinderctl --install-completion` "
        "sets up completion for your shell.\n\n"
    )
    text += "## Exit codes\n\n"
    text += table(("Code", "Meaning"), [(f"`{number}`", meaning) for number, meaning in EXIT_CODES.items()])
    text += "\n## Environment\n\n"
    text += table(("Variable", "Meaning"), [(f"`{name}`", meaning) for name, meaning in ENVIRONMENT.items()])
    panels: dict[str, list[Any]] = {}
    for command in commands_of(root):
        panels.setdefault(command.rich_help_panel, []).append(command)
    for panel, members in panels.items():
        text += f"\n## {panel}\n"
        text += "".join(command_section(command, f"cinderctl {command.name}") for command in members)
    return text


def commands_of(group: Any) -> list[Any]:
    return [command for command in getattr(group, "commands", {}).values() if not command.hidden]


def command_section(command: Any, path: str) -> str:
    context = typer.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    text = f"\n### {path}\n\n{prose(command.help or '')}\n\n```\n{usage}\n```\n"
    for title, kind in (("Argument", "argument"), ("Option", "option")):
        rows = [
            parameter_row(record)
            for parameter in command.params
            if parameter.param_type_name == kind and (record := parameter.get_help_record(context))
        ]
        if rows:
            text += "\n" + table((title, "Default", "Meaning"), rows)
    return text + "".join(command_section(each, f"{path} {each.name}") for each in commands_of(command))


def parameter_row(record: tuple[str, str]) -> tuple[str, str, str]:
    """Of `(names, "help  [default: x; 1<=x<=9]")`."""
    names, help_text = record
    text, _, extra = help_text.removesuffix("]").rpartition("[") if help_text.endswith("]") else (help_text, "", "")
    default, notes = "", []
    for part in filter(None, extra.split("; ")):
        if part.startswith("default: "):
            default = part.removeprefix("default: ")
        elif part == "required":
            default = "required"
        else:
            notes.append(f"`{part}`")
    plain = default == "required" or " " in default
    shown = prose(default) if plain or not default else f"`{default}`"
    return f"`{names.replace('|', ' or ')}`", shown, " ".join([prose(text), *notes]).strip()


# --- spec.md


def spec_page() -> str:
    schema = ClusterConfiguration.model_json_schema(by_alias=True, mode="validation")
    models: dict[str, Mapping[str, Any]] = {"ClusterConfiguration": schema, **schema["$defs"]}
    places: dict[str, list[str]] = {"ClusterConfiguration": []}
    collect_places(schema, "", models, places)
    text = f"{_NOTE}# Spec\n\n"
    text += (
        "One YAML file, `cluster.yaml` or `cinder.yaml`, describes a cluster. Names that are not listed here are "
        "errors. An empty field (`files:`) means its default. Several files (`-f` given more than once) overlay in "
        "order: maps are merged, lists and scalars replaced. `cinderctl validate` shows every problem at once; "
        "[cluster.schema.json](cluster.schema.json) makes editors show them while you type:\n\n"
        "```yaml\n# yaml-language-server: $schema=cluster.schema.json\n"
        "apiVersion: cinder.crit.sh/v1alpha1\nkind: ClusterConfiguration\n```\n"
    )
    for name, where in places.items():
        model = models[name]
        text += f"\n## {name}\n\n{prose(model.get('description', ''))}\n"
        if where:
            text += f"\nAt {', '.join(f'`{place}`' for place in where)}.\n"
        required = model.get("required", ())
        rows = [
            (
                f"`{field}`",
                type_words(value),
                "required" if field in required else code(value.get("default")),
                # pydantic leaves out what would only repeat the model's own description
                prose(value.get("description") or models.get(target_of(value), {}).get("description", "")),
            )
            for field, value in model["properties"].items()
        ]
        text += "\n" + table(("Field", "Type", "Default", "Meaning"), rows)
    return text


def target_of(value: Mapping[str, Any]) -> str:
    """Name of the model that a field is of; "" when it is of none."""
    return str(value.get("$ref", "")).rpartition("/")[2]


def collect_places(
    model: Mapping[str, Any], path: str, models: Mapping[str, Mapping[str, Any]], places: dict[str, list[str]]
) -> None:
    """Where in a file each model stands, in the order a reader meets them."""
    for field, value in model["properties"].items():
        here = f"{path}.{field}" if path else field
        for name, suffix in models_in(value):
            places.setdefault(name, []).append(here + suffix)
            collect_places(models[name], here + suffix, models, places)


def models_in(value: Any, suffix: str = "") -> Iterator[tuple[str, str]]:
    if "$ref" in value:
        yield target_of(value), suffix
    for option in value.get("anyOf", ()):
        yield from models_in(option, suffix)
    if isinstance(value.get("items"), Mapping):
        yield from models_in(value["items"], f"{suffix}[]")
    if isinstance(value.get("additionalProperties"), Mapping):
        yield from models_in(value["additionalProperties"], f"{suffix}.*")


_WORDS = {"string": "text", "boolean": "true or false", "number": "number", "null": "nothing", "array": "list"}


def type_words(value: Mapping[str, Any]) -> str:
    """A JSON Schema in words."""
    if "$ref" in value:
        name = target_of(value)
        return f"[{name}](#{name.lower()})"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return "one of " + ", ".join(f"`{item}`" if item else '`""`' for item in value["enum"])
    if "anyOf" in value:
        return " or ".join(type_words(option) for option in value["anyOf"] if option.get("type") != "null")
    kind = value.get("type")
    if isinstance(kind, list):
        return "text, number, boolean" + (" or a list of them" if "array" in kind else "")
    if kind == "array":
        return f"list of {plural(type_words(value['items']))}"
    if kind == "object":
        inner = value.get("additionalProperties")
        return f"map of name to {type_words(inner)}" if isinstance(inner, Mapping) else "object"
    if kind == "integer":
        low, high = value.get("minimum", value.get("ge")), value.get("maximum", value.get("le"))
        return f"whole number, {low} to {high}" if high is not None else "whole number"
    if value.get("pattern") and value.get("maxLength"):
        return f"DNS label, at most {value['maxLength']} characters"
    return _WORDS[kind] if kind else "anything"


def plural(words: str) -> str:
    return {"text": "texts", "object": "objects"}.get(words, words)


# --- kinds.md


def kinds_page() -> str:
    kinds = sorted(
        (item for item in vars(provider).values() if isinstance(item, type) and hasattr(item, "inputs")),
        key=lambda kind: str(kind.kind),
    )
    text = f"{_NOTE}# Kinds\n\n"
    text += (
        "A cluster consists of resources, each of one kind; its *address* is `kind.name`. Plans, `drift` and the "
        "`lifecycle` section of the spec speak of the inputs below. Changing one that *replaces* needs a new object; "
        "all others change in place.\n\n"
    )
    text += "".join(f"- [`{kind.kind}`](#{kind.kind}): {first_sentence(kind)}\n" for kind in kinds)
    for kind in kinds:
        text += f"\n## {kind.kind}\n\n{paragraphs(sys.modules[kind.__module__].__doc__ or '')}\n"
        hints = get_type_hints(kind.inputs)
        rows = [input_row(each, hints[each.name]) for each in fields(kind.inputs)]
        text += table(("Input", "Type", "Default", "Replaces", "Meaning"), rows)
        together = f"up to {kind.parallelism} at once" if kind.parallelism > 1 else "one at a time"
        text += f"\nA step may take {kind.deadline:g} s; {together}.\n"
    return text


def first_sentence(kind: Any) -> str:
    return prose(re.split(r"(?<=[.:])\s", sys.modules[kind.__module__].__doc__ or "", maxsplit=1)[0].rstrip(":."))


def input_row(each: Field[Any], hint: Any) -> tuple[str, str, str, str, str]:
    meta = each.metadata["cinderctl"]
    required = each.default is MISSING and each.default_factory is MISSING
    default = "required" if required else code(None if each.default is MISSING else each.default)
    meaning = f"{prose(meta.doc)} ({meta.unit})" if meta.unit else prose(meta.doc)
    return f"`{each.name}`", hint_words(hint), default, "yes" if meta.replaces else "", meaning


def hint_words(hint: Any) -> str:
    """A Python type in words."""
    if get_origin(hint) is tuple:
        return f"list of {plural(hint_words(get_args(hint)[0]))}"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f"`{item}`" for item in get_args(hint))
    if get_origin(hint) in {Union, UnionType}:
        return " or ".join(hint_words(option) for option in get_args(hint) if option is not NoneType)
    if get_origin(hint) is not None:
        return "map" if issubclass(get_origin(hint), Mapping) else "list"
    return {str: "text", int: "whole number", bool: "true or false"}.get(hint, "any")


# --- json.md

_NODE = Address("wasm_node", "cinder-wasi")
_PLANE = Address("control_plane", "cinder")
_CHANGE = Change(
    address=_PLANE,
    action=Action.UPDATE,
    reason="the world changed `components.kube-scheduler.state`",
    fields=(FieldChange(("components", "kube-scheduler", "state"), "stopped", "ready", Cause.WORLD),),
    depends_on=(Address("cni", "loopback"),),
    source="cluster.yaml:9",
    fingerprint="sha256:6d3f",
    cause=Cause.WORLD,
)
_UNSEEN = Diagnostic("the API server does not answer", hint="run `cinderctl status`", address=_NODE)
_PLAN = Plan("cinder", Mode.APPLY, (_CHANGE,), spec_digest="sha256:91b7", unobserved=(_UNSEEN,))


def block(value: Any) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```\n"


def event_rows() -> Iterator[tuple[str, str, str]]:
    for kind in get_args(events.Event):
        # A dataclass without a docstring of its own has its signature there.
        words = kind.__doc__ if not kind.__doc__.startswith(f"{kind.__name__}(") else "It went well."
        members = ", ".join(f"`{each.name}`" for each in fields(kind))
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
        yield f"`{name}`", members, prose(words.replace("None", "null"))


def json_page() -> str:
    started = events.StepStarted(1893456000.25, _PLANE, "update", _CHANGE)
    schemas = sorted(path.relative_to(REFERENCE).as_posix() for path in REFERENCE.rglob("*.schema.json"))
    parts = {
        "@VERSION@": FORMAT_VERSION,
        "@PLAN@": block(plan_to_json(_PLAN)),
        "@DRIFT@": block(drift_to_json(drift_of(_PLAN))),
        "@EVENTS@": table(("`type`", "Members", "Meaning"), list(event_rows())),
        "@EVENT@": block(events.event_to_json(started)),
        "@ERROR@": block(json.loads(as_json([_UNSEEN]))),
        "@SCHEMAS@": "".join(f"- [{path}]({path})\n" for path in schemas),
    }
    text = _JSON_PAGE
    for mark, content in parts.items():
        text = text.replace(mark, content)
    return _NOTE + text


_JSON_PAGE = """\
# JSON output

With `--output json` (`-o json`) a command writes JSON to stdout, and errors as JSON to stderr. Exit codes are those of
the [command line](cli.md#exit-codes). No output holds a secret: a sensitive value reads `(sensitive)` with a short
digest, so that a change still shows as one. A value that another resource yet has to give reads `(known after apply)`,
and `unknown_after` is true.

## format_version

Every document and every line says `format_version`, now `@VERSION@`. The minor number grows when members are added:
ignore what you do not know. The major number grows when a member goes or changes its meaning.

JSON Schemas:

@SCHEMAS@
## plan

`cinderctl plan -o json`, and `cinderctl show FILE -o json` for a saved plan. One object. Unchanged resources are only
counted (`summary.unchanged`).

@PLAN@
`action` is `create`, `update`, `replace`, `delete`, `adopt` or `forget`. `reason` is for people; programs read `cause`:
`spec` (the spec changed), `world` (somebody changed the world), `both`, or `dependency` (it follows from another
resource). `fields[].path` has dots, with quotes around parts that hold one. `held` lists what would change and is left
alone, with the reason. `unobserved` lists what could not be seen, `diagnostics` what else there is to say; one of
severity `error` forbids applying the plan.

## drift

`cinderctl drift -o json`. One object. `before` is what the world has, `after` what the spec says. `pending` are changes
of the spec that nobody applied yet: they are no drift.

@DRIFT@
`changes[].drift` is `changed`, `gone`, `not ready` or `unrecorded` (its record is lost).

## apply and destroy

`cinderctl apply --auto-approve -o json`. One object a line (NDJSON), as things happen. `at` is in seconds since the
epoch, `seconds` a duration.

@EVENTS@
For example (on one line):

@EVENT@
`phase` is `create`, `update`, `delete` or `adopt`; a replacement is a `delete` and a `create`. `change` has the form it
has in a plan.

## Errors

On stderr, one line:

@ERROR@
## validate

`{"format_version", "valid": true, "cluster", "resources"}`: the name, and how many resources the spec stands for. A
spec that is not valid is an error as above, with one diagnostic for each problem.

## status

`{"format_version", "cluster", "components": [...]}` with one object for each process:

| Member | Meaning |
| --- | --- |
| `component` | Its name, as `kube-apiserver`. |
| `state` | `starting`, `running`, `ready`, `backoff`, `stopped` or `failed`. |
| `pid` | Process id; null when it does not run. |
| `since` | When it came into this state, in seconds since the epoch; null when unknown. |
| `unexpected_exits` | How often it had to be restarted since the last apply. |
| `last_exit` | How it last ended: `exit 1`, `signal 9`; empty when it never did. |
| `error` | Why it is not ready, where that is known. |
| `log` | Path of its log. |

## state list

`{"format_version", "cluster", "resources": [...]}` with one object for each resource that is ours:

| Member | Meaning |
| --- | --- |
| `address` | `kind.name`. |
| `existence` | `present`, or `unknown` when it could not be seen (the exit code is then 4). |
| `outputs` | What other resources may refer to. |
| `depends_on` | Addresses it was built on. |
| `digest` | Digest of the inputs last applied; null when its record is lost. |

## binaries list, push, inspect

`binaries list`: `{"format_version", "binaries": [...]}`, each with `name`, `version`, `state`, `path`, `size` (bytes),
`origin`, `detail` and `wanted` (false for other versions that the cache still holds). `push` and `inspect`: one object
with what the text shows.
"""

PAGES = {"cli.md": cli_page, "spec.md": spec_page, "kinds.md": kinds_page, "json.md": json_page}


def main(arguments: Sequence[str]) -> int:
    check = "--check" in arguments
    stale = []
    for name, page in PAGES.items():
        path = REFERENCE / name
        text = page()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and stale:
        sys.stderr.write(f"stale: {', '.join(stale)}; run `python docs/generate.py`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
