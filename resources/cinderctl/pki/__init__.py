"""Keys, certificates and signing requests as PEM bytes. Pure: no files, no clock; storing and rotating is elsewhere."""
