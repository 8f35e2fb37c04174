"""``research-jobs remote-serve``: the far side of a connection, which ssh starts."""

from __future__ import annotations

import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare none: the other side says on stdin which project it means."""
    parser.epilog = "Another machine's research-jobs starts it over ssh; a person does not."


def run(_: argparse.Namespace) -> int:
    """Answer on stdin and stdout until the other side is gone."""
    from research_jobs import __version__
    from research_jobs.remote.serving import serve_process

    return serve_process(__version__)
