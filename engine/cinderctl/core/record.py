"""What we leave on every object we make, so that the world alone says whose it is and what it stood on.

On Kubernetes objects it is a label and an annotation, on containers a label, beside host files a sidecar. It holds no
secret: secret inputs are stored as a digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cinderctl.core.address import Address
from cinderctl.core.digest import canonical_json, digest_of

__all__ = ["LABEL_CLUSTER", "RECORD_ANNOTATION", "Record"]

LABEL_CLUSTER = "cinder.crit.sh/cluster"
RECORD_ANNOTATION = "cinder.crit.sh/record"


@dataclass(frozen=True, slots=True)
class Record:
    """`inputs` are the inputs last applied (secrets redacted), the base of three-way diffs."""

    cluster: str
    address: Address
    inputs: Mapping[str, Any]
    depends_on: tuple[Address, ...] = ()
    protect: bool = False
    digest: str = field(default="")

    def __post_init__(self) -> None:
        if not self.digest:
            object.__setattr__(self, "digest", digest_of(self.inputs))

    def to_json(self) -> str:
        value: dict[str, Any] = {
            "cluster": self.cluster,
            "address": str(self.address),
            "inputs": self.inputs,
            "dependsOn": [str(address) for address in self.depends_on],
            "digest": self.digest,
        }
        if self.protect:
            value["protect"] = True
        return canonical_json(value)

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        """Raises: ValueError for anything `to_json` did not write."""
        try:
            value = json.loads(text)
            return cls(
                cluster=str(value["cluster"]),
                address=Address.parse(value["address"]),
                inputs=dict(value["inputs"]),
                depends_on=tuple(Address.parse(item) for item in value["dependsOn"]),
                protect=bool(value.get("protect", False)),
                digest=str(value["digest"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a record: {error}") from error
