"""The code location: a folder and its manifest as Dagster's objects."""
