"""The code location: what ``dagster dev``, the code server and the daemon load."""

from research_jobs.process import gc_paused, gc_resume

# Definitions are many objects that live as long as the process. Looking through them for garbage,
# again and again while there are ever more, takes a third of the time that a large folder needs;
# one round while our own modules are imported looks through all that Dagster's import has made.
with gc_paused():
    from research_jobs.orchestration.definitions.factory import build_defs

    defs = build_defs()
    defs.get_repository_def()  # Dagster asks for it next, and is given this one
    gc_resume()
