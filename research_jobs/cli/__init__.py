"""The command `research-jobs`, one file a command."""
