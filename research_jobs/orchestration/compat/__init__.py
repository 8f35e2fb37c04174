"""Every private name of Dagster, each in one small function with its public fallback.

A private name is imported inside the function that needs it. Where a version of Dagster lacks it,
the function does the same by Dagster's public means, or goes without, and says once in the log
what is slower or missing (`fallback.lacking`). The executor is the one exception: it is built of
private parts as a whole, and Dagster's own takes its place.

The contract tests say which name changed and what that breaks:
``tests/orchestration/test_dagster_contract_*.py``, ``test_dagster_storage.py`` and
``test_dagster_fallbacks.py``, which takes each name away in turn.
"""
