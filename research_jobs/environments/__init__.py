"""Environments of notebooks that ask for packages of their own: declared, locked, made, removed."""
