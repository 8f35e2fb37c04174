"""Side-by-side measurements. ``python -m benchmarks`` runs them; no test asserts a time."""
