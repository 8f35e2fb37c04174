"""Outputs at rest, as Parquet: pyarrow and fsspec; never Dagster."""
