"""Backups of a project: what goes in, how it is stored, and how it is proven. No Dagster here."""
