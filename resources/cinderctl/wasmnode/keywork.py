"""Keys, requests and certificates for the agent, in a process of its own that ends when it is done.

`cryptography` costs ten megabytes that the agent would carry for its whole life and use for a second of it. Reads a
JSON object per line from stdin and answers each with one on stdout; private keys go through files (0600) only.

    {"op": "request", "keyFile": path, "commonName": .., "organizations": [..], "dnsNames": [..], "ipAddresses": [..]}
        → {"csr": PEM, "digest": hex}     the key is made when the file is not there
    {"op": "inspect", "pemFile": path, "caFile": path}
        → {"why": text, "commonName": .., "dnsNames": [..], "ipAddresses": [..], "notBefore": s, "notAfter": s}
    {"op": "keep", "pem": PEM, "keyFile": path, "pemFile": path, "caFile": path}
        → as inspect, of the file now made of certificate and key, whose own file is gone; {"mismatch": true} when the
          certificate is for another key
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinderctl.core.diagnostics import CinderError
from cinderctl.host.files import remove_file, write_atomic
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
        case "keep":
            return _keep(question)
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
        "why": why,
        "commonName": info.common_name,
        "dnsNames": list(info.dns_names),
        "ipAddresses": list(info.ip_addresses),
        "notBefore": info.not_before.timestamp(),
        "notAfter": info.not_after.timestamp(),
    }


def _keep(question: Mapping[str, Any]) -> dict[str, Any]:
    pem, key_file = question["pem"].encode(), Path(question["keyFile"])
    key = key_file.read_bytes()
    if not key_matches(pem, key):
        return {"mismatch": True}
    write_atomic(Path(question["pemFile"]), pem.rstrip() + b"\n" + key)
    remove_file(key_file)
    return _inspect(question)


def main() -> int:
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except (CinderError, KeyError, OSError, ValueError) as error:
            reply = {"error": str(error)}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
