"""A project on another machine, over the system's own ssh: what it has published, pulled here.

`connection` is this side, `serving` the other; `frames` is what they say to each other. Nothing
here knows Dagster.
"""
