"""The control plane, one module a provider. Here: upstream's processes on loopback (`process`)."""
