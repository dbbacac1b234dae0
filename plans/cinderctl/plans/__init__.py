"""A plan as data: the model, the file, the renderings. No I/O beyond bytes, no clock, no network."""
