"""Tests of notebooks: a fixture and `pytest --notebooks`."""
