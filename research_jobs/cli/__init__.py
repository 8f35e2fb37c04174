"""``research-jobs``: one file a command.

A command's module is imported only when that command is called, and imports what is heavy
(Dagster, rich) only where it needs it: ``research-jobs --help`` answers at once.
"""
