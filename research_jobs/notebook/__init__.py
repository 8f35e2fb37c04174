"""A notebook as text: read, never run. Standard library only."""
