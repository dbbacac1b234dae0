"""What every layer speaks: addresses, values, records, diagnostics, digests. Standard library only, no I/O."""
