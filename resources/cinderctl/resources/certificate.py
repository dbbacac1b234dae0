"""Keys and certificates of a cluster, as files `pki/<name>.crt` and `.key` with a sidecar record each.

A certificate is re-issued in place before it expires, with its own key, so that what it signed stays valid: only
another algorithm or signer needs a new key. Names and subjects follow kubeadm (kubernetes.io, "PKI certificates and
requirements")."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from cinderctl.core.address import Address
from cinderctl.core.diagnostics import Diagnostic
from cinderctl.engine.kinds import Existence, Observation, Scope, Step, input_field
from cinderctl.host.files import ensure_dir, read_bytes, remove_file, write_atomic
from cinderctl.host.records import delete_record, list_records, read_record, write_record
from cinderctl.pki import (
    CertificateInfo,
    PkiError,
    Subject,
    describe,
    issue,
    key_matches,
    new_private_key,
    public_key_pem,
    self_signed_ca,
    signed_by,
)
from cinderctl.plans.model import FieldChange
from cinderctl.resources.context import Context

__all__ = ["CertificateInputs", "CertificateKind"]

_BACKDATE = timedelta(minutes=5)  # a clock that is a little behind still accepts a new certificate
_VALID = "valid"


@dataclass(frozen=True, slots=True)
class CertificateInputs:
    usage: str = input_field(
        "What it is for: ca, server, client, peer (server and client) or key (no certificate)", replaces=True
    )
    common_name: str = input_field("Subject common name", default="")
    organizations: tuple[str, ...] = input_field("Subject organizations: Kubernetes groups of a client", default=())
    dns_names: tuple[str, ...] = input_field("Subject alternative DNS names", default=())
    ip_addresses: tuple[str, ...] = input_field("Subject alternative IP addresses", default=())
    signer: str = input_field(
        "Name of the certificate resource that signs; empty for a CA and for a bare key", replaces=True, default=""
    )
    algorithm: str = input_field(
        "Key algorithm: ecdsa-p256, ecdsa-p384, rsa-2048 or rsa-4096", replaces=True, default="ecdsa-p256"
    )
    validity_days: int = input_field("Lifetime from issue", unit="days", default=365)
    renew_before_days: int = input_field(
        "When less than this is left, the certificate is re-issued", unit="days", default=30
    )
    expiry: str = input_field(
        "Always `valid`: an observed `expired` or `renewal due` is what plans a rotation", default=_VALID
    )


class CertificateKind:
    kind: ClassVar[str] = "certificate"
    inputs: ClassVar[type[Any]] = CertificateInputs
    deadline: ClassVar[float] = 30.0
    parallelism: ClassVar[int] = 4
    volatile_outputs: ClassVar[frozenset[str]] = frozenset({"fingerprint"})

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pki = context.cluster.pki

    def discover(self, scope: Scope) -> Iterable[Observation]:
        for record in list_records(self._context.cluster.records, self.kind):
            if record.address not in scope.declared:
                yield self.observe(record.address, None, scope)

    def observe(self, address: Address, want: CertificateInputs | None, scope: Scope) -> Observation:
        del want, scope
        record = read_record(self._context.cluster.records, address)
        certificate, key = self._paths(address.name)
        try:
            pem = key.read_bytes()
            certificate_pem = certificate.read_bytes() if certificate.exists() else b""
        except FileNotFoundError:
            return Observation.absent(address)
        except OSError as error:
            return Observation.not_seen(address, Diagnostic(f"cannot read {key}", detail=str(error), address=address))
        if record is None:
            # Key without record: a create was interrupted; create takes the key over.
            return Observation.absent(address)
        if record.inputs.get("usage") == "key":
            attributes = {"expiry": self._public_part(certificate, pem)}
        else:
            attributes = self._observed(record.inputs, certificate_pem, pem)
        return Observation(address, Existence.PRESENT, attributes, self._outputs(address.name), record)

    def _observed(self, recorded: Mapping[str, Any], certificate: bytes, key: bytes) -> dict[str, Any]:
        try:
            info = describe(certificate)
            whole = key_matches(certificate, key) and self._signed(certificate, str(recorded.get("signer", "")))
        except PkiError:
            return {"expiry": "unreadable"}
        if not whole:
            return {"expiry": "not signed by its CA for its key"}
        return {
            "common_name": info.common_name,
            "organizations": list(info.organizations),
            "dns_names": list(info.dns_names),
            "ip_addresses": list(info.ip_addresses),
            "expiry": self._expiry(info, int(recorded.get("renew_before_days", 30))),
        }

    def _public_part(self, certificate: Path, key: bytes) -> str:
        """`valid` when the public key beside a bare key is that key's."""
        try:
            fits = read_bytes(certificate.with_suffix(".pub")) == public_key_pem(key)
        except PkiError:
            return "unreadable"
        return _VALID if fits else "its public key file is missing or another's"

    def _signed(self, certificate: bytes, signer: str) -> bool:
        if not signer:
            return True
        ca = self._paths(signer)[0]
        return ca.exists() and signed_by(certificate, ca.read_bytes())

    def _expiry(self, info: CertificateInfo, renew_before_days: int) -> str:
        now = self._context.now()
        if now >= info.not_after:
            return f"expired {info.not_after:%Y-%m-%d}"
        if now < info.not_before:
            return f"not valid before {info.not_before:%Y-%m-%d %H:%M} UTC"
        # A lifetime shorter than the renewal window (tests, short-lived clusters) renews in its last third.
        window = min(timedelta(days=renew_before_days), (info.not_after - info.not_before) / 3)
        return f"renewal due, expires {info.not_after:%Y-%m-%d}" if info.not_after - now < window else _VALID

    def create(self, address: Address, want: CertificateInputs, step: Step) -> Mapping[str, Any]:
        ensure_dir(self._pki)
        certificate, key = self._paths(address.name)
        ensure_dir(key.parent)
        if not key.exists():
            write_atomic(key, new_private_key(want.algorithm))
        self._issue(certificate, key, want)
        write_record(self._context.cluster.records, step.record)
        return self._outputs(address.name)

    def update(
        self, address: Address, want: CertificateInputs, have: Observation, changes: Sequence[FieldChange], step: Step
    ) -> Mapping[str, Any]:
        del have, changes
        return self.create(address, want, step)

    def delete(self, have: Observation, step: Step) -> None:
        del step
        certificate, key = self._paths(have.address.name)
        for path in (certificate, certificate.with_suffix(".pub"), key):
            remove_file(path)
        delete_record(self._context.cluster.records, have.address)

    def _issue(self, certificate: Path, key: Path, want: CertificateInputs) -> None:
        pem = key.read_bytes()
        not_before = self._context.now() - _BACKDATE
        if want.usage == "key":
            write_atomic(certificate.with_suffix(".pub"), public_key_pem(pem))
            return
        if want.usage == "ca":
            issued = self_signed_ca(pem, want.common_name, not_before=not_before, days=want.validity_days)
        else:
            ca, ca_key = self._paths(want.signer)
            subject = Subject(want.common_name, want.organizations, want.dns_names, want.ip_addresses)
            issued = issue(
                ca.read_bytes(),
                ca_key.read_bytes(),
                pem,
                subject,
                server=want.usage in {"server", "peer"},
                client=want.usage in {"client", "peer"},
                not_before=not_before,
                days=want.validity_days,
            )
        write_atomic(certificate, issued)

    def _paths(self, name: str) -> tuple[Path, Path]:
        return self._pki / f"{name}.crt", self._pki / f"{name}.key"

    def _outputs(self, name: str) -> dict[str, Any]:
        certificate, key = self._paths(name)
        outputs: dict[str, Any] = {"certificate": str(certificate), "key": str(key)}
        pem = read_bytes(certificate)
        if pem is None:
            outputs["public_key"] = str(certificate.with_suffix(".pub"))
            return outputs
        # A damaged one has none: what refers to it is planned as known after apply.
        with contextlib.suppress(PkiError):
            outputs["fingerprint"] = describe(pem).fingerprint
        return outputs
