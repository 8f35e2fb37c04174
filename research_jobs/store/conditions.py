"""Replacing a small object on the condition that it is still the one that was read.

fsspec has no common call for this, so there is one small function for each service that can do
it: S3, Google Cloud Storage, Azure. Whether the service at hand really does is tried out: some
that speak S3 ignore the condition, and some compare the tag without its quotation marks.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["CONDITIONS", "Conditions", "is_lost", "is_refused"]


@dataclass(frozen=True)
class Conditions:
    """How a service replaces an object on a condition.

    Parameters
    ----------
    tag : str
        What fsspec's ``info()`` calls the tag of an object's content.
    never : str
        A tag that no object has.
    put : callable
        ``put(system, path, content, tag)`` writes if the object has the tag, or does not exist
        where the tag is None. Otherwise it raises an error that `is_lost` knows.
    """

    tag: str
    never: str
    put: Callable[[Any, str, bytes, str | None], object]


def _put_s3(system: Any, path: str, content: bytes, tag: str | None) -> None:
    condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
    system.pipe_file(path, content, **condition)


def _put_s3_bare(system: Any, path: str, content: bytes, tag: str | None) -> None:
    """As Ceph's gateway wants it, which gives a tag in quotation marks and compares without."""
    _put_s3(system, path, content, tag and tag.strip('"'))


def _put_google(system: Any, path: str, content: bytes, tag: str | None) -> None:
    bucket, key, _ = system.split_path(path)
    # With its name as a first part, as gcsfs uploads: emulators honour conditions only there.
    edge = secrets.token_hex(16)
    head = b"--%s\r\nContent-Type: application/json\r\n\r\n" % edge.encode()
    name = json.dumps({"name": key}).encode()
    system.call(
        "POST",
        f"{system._location}/upload/storage/v1/b/{{}}/o",  # noqa: SLF001 - as gcsfs uploads
        bucket,
        uploadType="multipart",
        ifGenerationMatch=tag or "0",
        data=head + name + b"\r\n" + head + content + f"\r\n--{edge}--\r\n".encode(),
        headers={"Content-Type": f"multipart/related; boundary={edge}"},
        json_out=True,
    )


def _put_azure(system: Any, path: str, content: bytes, tag: str | None) -> None:
    if tag is None:
        system.pipe_file(path, content, overwrite=False)
        return
    from azure.core import MatchConditions  # pyright: ignore[reportMissingImports] - with adlfs

    system.pipe_file(path, content, etag=tag, match_condition=MatchConditions.IfNotModified)


_S3 = Conditions("ETag", f'"{"0" * 32}"', _put_s3)
_GOOGLE = Conditions("generation", "1", _put_google)
_AZURE = Conditions("etag", '"0x0"', _put_azure)

_OF_S3 = (_S3, replace(_S3, put=_put_s3_bare))

CONDITIONS: Mapping[str, tuple[Conditions, ...]] = {
    "s3": _OF_S3, "s3a": _OF_S3, "gs": (_GOOGLE,), "gcs": (_GOOGLE,),
    "az": (_AZURE,), "abfs": (_AZURE,), "abfss": (_AZURE,),
}  # fmt: skip
"""fsspec's protocol to the ways in which it is done; the first that works is taken."""


def is_lost(error: BaseException) -> bool:
    """Whether the service says that the condition does not hold."""
    return isinstance(error, FileExistsError) or _status(error) in (409, 412)


def is_refused(error: BaseException) -> bool:
    """Whether the service says that it knows no conditions."""
    return _status(error) in (400, 405, 501)


def _status(error: BaseException) -> int | None:
    """The HTTP status behind a client library's error."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, Mapping):
            return int(response["ResponseMetadata"]["HTTPStatusCode"])
        for name in ("status_code", "code"):
            status = getattr(each, name, None)
            if isinstance(status, (int, str)) and str(status).isdigit():
                return int(status)
    return None
