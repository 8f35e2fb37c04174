"""Jupyter notebooks as percent scripts that mean the same."""
