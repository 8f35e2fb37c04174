"""Asking a code server what it serves, which shows whether it can answer at all."""

# Private names are what this module is for.
# pyright: reportPrivateUsage=false
# ruff: noqa: SLF001

from __future__ import annotations

from typing import Any

from research_jobs.orchestration.compat.fallback import lacking

__all__ = ["NoAnswerError", "load_error"]


class NoAnswerError(Exception):
    """A code server does not answer."""


def load_error(address: str, timeout_s: int) -> Any:
    """What keeps a code server from serving its definitions.

    A question that only the process with the definitions can answer: the server before it answers
    health checks even when that process is gone.

    Parameters
    ----------
    address : str
        ``host:port``, or ``unix:path``.
    timeout_s : int

    Returns
    -------
    object or None
        The error, as Dagster stores an exception; None where the definitions are served, or where
        this version of Dagster cannot be asked.

    Raises
    ------
    NoAnswerError
        When there is no answer in time.
    """
    try:
        from dagster._core.errors import DagsterUserCodeUnreachableError
        from dagster._grpc.__generated__.dagster_api_pb2 import ListRepositoriesRequest
        from dagster._grpc.client import DagsterGrpcClient
        from dagster._serdes import deserialize_value
    except ImportError as error:
        lacking(error, "a code server that hangs is not noticed")
        return None
    socket = address.removeprefix("unix:") if address.startswith("unix:") else None
    host, _, port = address.rpartition(":")
    client = DagsterGrpcClient(
        host=host or "localhost" if socket is None else "localhost",
        port=int(port) if socket is None else None,
        socket=socket,
    )
    try:
        reply = client._query("ListRepositories", ListRepositoriesRequest, timeout=timeout_s)
    except DagsterUserCodeUnreachableError as error:
        raise NoAnswerError(str(error)) from error
    answer = deserialize_value(reply.serialized_list_repositories_response_or_error)
    # An error that Dagster serialized, or what it serves.
    return answer if hasattr(answer, "cause") else None
