"""The parent's side of one run; never Dagster."""
