"""The user's file: its models, how it is read, what is wrong with it and where.

Here: the pydantic models of `cinder.crit.sh/v1alpha1`, YAML with source positions, overlays, every check that needs
nothing but the files, what each provider takes, the JSON Schema. Not here: declarations (`resources.catalog` makes them
from the models), anything that looks at the world beyond the files that the spec names, printing.

`v1alpha1` holds the models, `load.load` reads files into `Loaded`, `schema.schema_text` writes the schema.
"""
