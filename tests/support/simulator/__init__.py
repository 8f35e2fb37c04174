"""A simulated server: years of schedules, runs, outages, edits and clocks, from one number.

The world of a seed is always the same. It asks the functions of `research_jobs.decisions` what to
do, as Dagster's side does, and afterwards compares what became of everything with what must be true
of any world (`checks`).

::

    python -m simulator --years 1000            # seeds 0 to 999, on all cores
    python -m simulator --seed 17               # replay one
"""
