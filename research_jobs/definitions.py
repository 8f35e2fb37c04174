"""The code location: what ``dagster dev``, the code server and the daemon load."""

from research_jobs.process import gc_paused, gc_resume

# Definitions are many objects that live as long as the process. Scanning them for garbage again and
# again takes a third of the time that a large folder needs; a single collection while our modules
# are imported scans everything that importing Dagster created.
with gc_paused():
    from research_jobs.orchestration.definitions.factory import build_defs

    defs = build_defs()
    defs.get_repository_def()  # Dagster asks for it next and gets this one
    gc_resume()
