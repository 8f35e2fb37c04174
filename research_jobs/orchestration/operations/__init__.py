"""What a person or a command asks for: run now, backfill, what is stale, what happened."""
