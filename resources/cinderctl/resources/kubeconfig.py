"""The cluster's entries in the user's kubeconfig: cluster, user and context, and the current context.

Owned: those entries, marked by an extension; nothing else in the file moves. The record remembers which file they
went to and what context was current before, so that destroy finds the one and restores the other."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic
from cinderctl.engine.kinds import Existence, Observation, Scope, Step, input_field
from cinderctl.host.dirs import ClusterDir
from cinderctl.host.records import delete_record, list_records, read_extra, read_record, write_record
from cinderctl.kube.kubeconfig import CorruptConfigError, Entries, Names, merge, read_entry, remove
from cinderctl.pki import describe
from cinderctl.plans.model import FieldChange
from cinderctl.resources.cluster_api import ClusterApi, server_of
from cinderctl.resources.context import Context

__all__ = ["KubeconfigInputs", "KubeconfigKind", "complete_kubeconfig", "export_entries"]


@dataclass(frozen=True, slots=True)
class KubeconfigInputs:
    context: str = input_field("Name of the context and of the user", replaces=True)
    namespace: str = input_field("Namespace of the context", default="default")
    set_current: bool = input_field("Make the context the current one when it is first written", default=True)
    path: str = input_field("The file; empty: $KUBECONFIG, else ~/.kube/config", replaces=True, default="")
    server: Any = input_field("URL of the API server", default="")
    ca_fingerprint: Any = input_field("Fingerprint of the cluster's CA", default="")
    client_fingerprint: Any = input_field("Fingerprint of the administrator's certificate", default="")


class KubeconfigKind:
    """`parallelism` is 1: the file is shared."""

    kind: ClassVar[str] = "kubeconfig"
    inputs: ClassVar[type[Any]] = KubeconfigInputs
    deadline: ClassVar[float] = 30.0
    parallelism: ClassVar[int] = 1
    volatile_outputs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, context: Context, api: ClusterApi) -> None:
        self._context = context
        self._api = api
        self._cluster = context.cluster
        self._records = context.cluster.records

    def discover(self, scope: Scope) -> Iterable[Observation]:
        for record in list_records(self._records, self.kind):
            if record.address not in scope.declared:
                yield self.observe(record.address, None, scope)

    def observe(self, address: Address, want: KubeconfigInputs | None, scope: Scope) -> Observation:
        del scope
        record = read_record(self._records, address)
        if record is None and want is None:
            return Observation.absent(address)
        context = str(record.inputs["context"]) if record is not None else want.context if want is not None else ""
        names = Names(self._context.name, context, context, str(self._cluster.root))
        explicit = self._file(address, want)
        try:
            found = read_entry(self._context.kubeconfig_env, self._context.user_home, explicit, names)
        except CorruptConfigError as error:
            problem: Diagnostic = error.diagnostics[0]
            return Observation.not_seen(address, problem.located(address=address))
        if found is None:
            return Observation.absent(address)
        if found.foreign:
            return Observation(address, Existence.PRESENT, foreign=f"the kubeconfig has {found.foreign}")
        if record is None:
            # Marked as ours, but the record is gone or was never written: create takes it over.
            return Observation.absent(address)
        attributes = {
            "server": found.server,
            "namespace": found.namespace,
            "ca_fingerprint": _fingerprint(found.ca_data),
            "client_fingerprint": _fingerprint(found.cert_data),
        }
        condition = f"without {', '.join(found.missing)}" if found.missing else "" if found.linked else "misdirected"
        return Observation(
            address,
            Existence.PRESENT,
            attributes,
            {"path": str(found.path)},
            record,
            ready=not condition,
            condition=condition,
        )

    def create(self, address: Address, want: KubeconfigInputs, step: Step) -> Mapping[str, Any]:
        outputs = self._put(address, want, step, set_current=want.set_current)
        # Whoever is handed a cluster begins with a pod. Waited for here and not where the control plane is made: there,
        # the nodes would join half a second later.
        step.wait_until(self._api.takes_pods, "pods can be made in the default namespace", interval=0.03)
        return outputs

    def _put(self, address: Address, want: KubeconfigInputs, step: Step, *, set_current: bool) -> Mapping[str, Any]:
        before = read_extra(self._records, address)
        entries = _entries(self._cluster, self._context.name, want.context, str(want.server), want.namespace)
        explicit = self._file(address, want)
        merged = merge(self._context.kubeconfig_env, self._context.user_home, explicit, entries, set_current)
        extra = {
            "path": str(merged.path),
            "created": before.get("created", merged.created),
            "previous": before.get("previous", merged.previous_context),
        }
        if extra["previous"] == want.context:
            extra["previous"] = ""
        write_record(self._records, step.record, extra)
        return {"path": str(merged.path)}

    def update(
        self, address: Address, want: KubeconfigInputs, have: Observation, changes: Sequence[FieldChange], step: Step
    ) -> Mapping[str, Any]:
        # The current context is the user's to move once the entries are there.
        del have, changes
        return self._put(address, want, step, set_current=False)

    def delete(self, have: Observation, step: Step) -> None:
        extra = read_extra(self._records, have.address)
        context = str(step.record.inputs["context"])
        remove(
            self._context.kubeconfig_env,
            self._context.user_home,
            Path(extra["path"]) if extra.get("path") else self._file(have.address, None),
            Names(self._context.name, context, context, str(self._cluster.root)),
            restore=str(extra.get("previous", "")),
            created=bool(extra.get("created")),
        )
        delete_record(self._records, have.address)

    def _file(self, address: Address, want: KubeconfigInputs | None) -> Path | None:
        """The spec's file, else the one the entries went to, else None: whatever $KUBECONFIG says today."""
        if want is not None and want.path:
            return Path(want.path)
        recorded = read_extra(self._records, address).get("path")
        return Path(recorded) if recorded else None


def complete_kubeconfig(cluster: ClusterDir) -> Mapping[str, Any]:
    """The administrator's kubeconfig with its credentials written out, to be handed on."""
    value = json.loads((cluster.kubeconfigs / "admin.conf").read_text())
    entries = _entries(cluster, cluster.name, value["current-context"], server_of(cluster), "default")
    user = value["users"][0]["user"]
    user.clear()
    user["client-certificate-data"] = _base64(entries.cert_data)
    user["client-key-data"] = _base64(entries.key_data)
    complete: Mapping[str, Any] = value
    return complete


def export_entries(cluster: ClusterDir, kubeconfig_env: str, user_home: Path, file: Path | None) -> str:
    """Merge the entries into a kubeconfig and make the context current. Returns its name."""
    context = f"kubernetes-admin@{cluster.name}"
    entries = _entries(cluster, cluster.name, context, server_of(cluster), "default")
    merge(kubeconfig_env, user_home, file, entries, set_current=True)
    return context


def _entries(cluster: ClusterDir, name: str, context: str, server: str, namespace: str) -> Entries:
    pki = cluster.pki
    return Entries(
        cluster=name,
        context=context,
        user=context,
        server=server,
        ca_data=(pki / "ca.crt").read_bytes(),
        cert_data=(pki / "admin.crt").read_bytes(),
        key_data=(pki / "admin.key").read_bytes(),
        namespace=namespace,
        owner=str(cluster.root),
    )


def _fingerprint(certificate: bytes) -> str:
    try:
        return describe(certificate).fingerprint
    except ValueError:
        return "unreadable"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
