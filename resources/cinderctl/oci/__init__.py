"""OCI registries and the WebAssembly artifacts in them: references, mirrors, credentials, the client, the formats.

Belongs here: what speaks the distribution protocol and what tells one artifact format from another. Does not belong
here: starting a registry (a kind does), running modules (`cinderctl.wasmrun`), deciding when to pull (the node agent).
Synchronous, on urllib3; imports only `core` and `host`, because the node agent loads it and has to stay small.
"""
