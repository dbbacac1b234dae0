"""Keys, requests and certificates for the agent, in a process of its own that ends when it is done.

`cryptography` costs ten megabytes that the agent would carry for its whole life and use for a second of it. Reads one
JSON object from stdin, writes one to stdout; private keys go through files (0600), never through arguments.

    {"op": "request", "keyFile": path, "commonName": .., "organizations": [..], "dnsNames": [..], "ipAddresses": [..]}
        → {"csr": PEM, "digest": hex}     the key is made when the file is not there
    {"op": "inspect", "pemFile": path, "caFile": path}
        → {"usable": bool, "why": text, "commonName": .., "dnsNames": [..], "ipAddresses": [..], "notBefore": s,
           "notAfter": s}
    {"op": "matches", "pem": PEM, "keyFile": path} → {"matches": bool}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.files import write_atomic
from cinderctl.pki.certificates import Subject, describe, signed_by
from cinderctl.pki.keys import new_private_key, public_key_digest
from cinderctl.pki.requests import certificate_request, key_matches

__all__ = ["answer"]


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """Raises: CinderError, KeyError, OSError."""
    match question["op"]:
        case "request":
            return _request(question)
        case "inspect":
            return _inspect(question)
        case "matches":
            return {"matches": key_matches(question["pem"].encode(), Path(question["keyFile"]).read_bytes())}
        case other:
            raise CinderError(f"unknown operation {other!r}")


def _request(question: Mapping[str, Any]) -> dict[str, Any]:
    path = Path(question["keyFile"])
    if not path.exists():
        write_atomic(path, new_private_key())  # durable before anybody hears of the key
    key = path.read_bytes()
    subject = Subject(
        question["commonName"],
        tuple(question.get("organizations") or ()),
        tuple(question.get("dnsNames") or ()),
        tuple(question.get("ipAddresses") or ()),
    )
    return {"csr": certificate_request(key, subject).decode(), "digest": public_key_digest(key).removeprefix("sha256:")}


def _inspect(question: Mapping[str, Any]) -> dict[str, Any]:
    pem = Path(question["pemFile"]).read_bytes()
    info = describe(pem)
    why = ""
    if question.get("caFile") and not signed_by(pem, Path(question["caFile"]).read_bytes()):
        why = "it is not signed by the cluster's authority"
    elif not key_matches(pem, pem):
        why = "it is not for the key beside it"
    return {
        "usable": not why,
        "why": why,
        "commonName": info.common_name,
        "dnsNames": list(info.dns_names),
        "ipAddresses": list(info.ip_addresses),
        "notBefore": info.not_before.timestamp(),
        "notAfter": info.not_after.timestamp(),
    }


def main() -> int:
    try:
        json.dump(answer(json.load(sys.stdin)), sys.stdout)
    except (CinderError, KeyError, OSError, ValueError) as error:
        json.dump({"error": str(error)}, sys.stdout)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
