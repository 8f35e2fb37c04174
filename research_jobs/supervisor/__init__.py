"""The parent's side of one run. It never imports Dagster."""
