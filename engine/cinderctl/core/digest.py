"""Canonical JSON and its digest: the same value gives the same text whatever its dict order."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["canonical_json", "digest_of", "sha256_of"]


def canonical_json(value: Any) -> str:
    """Sorted keys, no spaces, UTF-8. Raises: TypeError for what JSON cannot hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(value: Any) -> str:
    """`sha256:<hex>` of the canonical JSON of a value."""
    return sha256_of(canonical_json(value).encode())


def sha256_of(data: bytes) -> str:
    """`sha256:<hex>` of bytes, in the form of an OCI digest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
