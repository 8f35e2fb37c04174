"""Inside the fresh process: standard library, pyarrow and IPython's display; never Dagster."""
