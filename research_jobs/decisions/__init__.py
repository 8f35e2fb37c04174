"""Decisions of schedules as pure functions of facts: Dagster's side and a simulator give those."""
