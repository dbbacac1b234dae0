"""Smaller settings: names, kubeconfig, registry, certificates, binaries, storage class, lifecycle."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from cinderctl.spec.base import DnsLabel, NonEmpty, Number, SpecModel, Switch, Text, wrong

__all__ = ["Binaries", "Certificates", "Kubeconfig", "LifecycleRule", "Metadata", "Registry", "StorageClass"]

DEFAULT_NAME = "cinder"


def _cluster_name(value: str) -> str:
    if len(value) > 50:
        raise wrong(
            "cluster name too long", f"It has {len(value)} characters; names of nodes are made from it, so at most 50"
        )
    return value


class Metadata(SpecModel):
    """The cluster's name."""

    name: Annotated[DnsLabel, AfterValidator(_cluster_name)] = Field(
        default=DEFAULT_NAME,
        json_schema_extra={"maxLength": 50},
        description="Name of the cluster: a DNS label of at most 50 characters. `--name` overrides it.",
    )


class Kubeconfig(SpecModel):
    """The entries in the user's kubeconfig. For the provider `external`: the way to the existing cluster."""

    path: NonEmpty | None = Field(
        default=None, description="The file, relative to the spec. Default: $KUBECONFIG, else ~/.kube/config."
    )
    context: NonEmpty | None = Field(
        default=None, description="Name of the context. Default: kubernetes-admin@<cluster>."
    )
    set_current: Switch = Field(
        default=True, description="Make it the current context (the earlier one returns on destroy)."
    )
    namespace: DnsLabel = Field(
        default="default",
        description="Namespace of the context, and of manifests that name none. (cinder's context had kube-system.)",
    )


class Registry(SpecModel):
    """The local registry, which the gate LocalRegistry turns on. Its name and port are localRegistryName and
    localRegistryPort."""

    delete_data: Switch = Field(default=False, description="Delete its data when its last cluster is destroyed.")


class Certificates(SpecModel):
    """Keys and certificates of the cluster."""

    algorithm: Literal["ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-4096"] = Field(
        default="ecdsa-p256", description="Algorithm of the keys."
    )
    validity_days: Annotated[Number, Field(ge=1, le=3650)] = Field(
        default=365, description="Life of a certificate, in days."
    )
    ca_validity_days: Annotated[Number, Field(ge=1, le=36500)] = Field(
        default=3650, description="Life of a CA, in days."
    )
    renew_before_days: Annotated[Number, Field(ge=0, le=3650)] = Field(
        default=30, description="A plan renews certificates that end within so many days."
    )

    @model_validator(mode="after")
    def _lives_fit(self) -> Certificates:
        if self.renew_before_days >= self.validity_days:
            raise wrong(
                "`renewBeforeDays` is not shorter than `validityDays`",
                f"Every plan would renew: {self.renew_before_days} days before the end of {self.validity_days}",
            )
        if self.ca_validity_days < self.validity_days:
            raise wrong("`caValidityDays` is shorter than `validityDays`", "A certificate cannot outlive its CA")
        return self


class Binaries(SpecModel):
    """Where upstream's programs come from."""

    directory: NonEmpty | None = Field(
        default=None,
        description="A directory with the programs, relative to the spec. Default: the cache, a download, a build.",
    )


class StorageClass(SpecModel):
    """The default StorageClass, which keeps volumes in local directories."""

    enabled: Switch = Field(default=True, description="Provide it.")
    name: DnsLabel = Field(default="local-path", description="Its name.")


class LifecycleRule(SpecModel):
    """How the resources of an address pattern may change."""

    protect: Switch = Field(default=False, description="Refuse to delete or replace them.")
    ignore: tuple[Text, ...] = Field(
        default=(), description="Paths of fields whose drift is left alone, as `spec.replicas`."
    )
