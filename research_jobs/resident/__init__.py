"""The resident host: it has Dagster and the definitions in memory, and forks run workers."""
