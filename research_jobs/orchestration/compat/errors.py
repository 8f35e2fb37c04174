"""An exception as Dagster stores it in an event."""

from __future__ import annotations

import traceback
from typing import Any

from dagster_shared.error import SerializableErrorInfo

from research_jobs.orchestration.compat.fallback import lacking

__all__ = ["error_info"]


def error_info(error: BaseException) -> SerializableErrorInfo:
    """An exception with its causes, as Dagster stores it in an event."""
    try:
        from dagster._utils.error import serializable_error_info_from_exc_info
    except ImportError as missing:
        lacking(missing, "an error is stored without what redacts it")
        return _plain_info(error)
    exc_info: Any = (type(error), error, error.__traceback__)
    return serializable_error_info_from_exc_info(exc_info)


def _plain_info(error: BaseException) -> SerializableErrorInfo:
    cause, context = error.__cause__, error.__context__
    return SerializableErrorInfo(
        "".join(traceback.format_exception_only(error)),
        traceback.format_tb(error.__traceback__),
        type(error).__name__,
        cause=_plain_info(cause) if cause else None,
        context=_plain_info(context) if context and not error.__suppress_context__ else None,
    )
