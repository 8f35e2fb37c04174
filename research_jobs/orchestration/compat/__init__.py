"""Every private name of Dagster, each in one small function with its public fallback."""
