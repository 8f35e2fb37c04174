"""A run: the executor, a step, its logs, its IO manager, what it reports."""
