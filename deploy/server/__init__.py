"""What `install`, `upgrade` and `rollback` share.

It uses the standard library alone: it runs before anything is installed.
"""
