"""Errors as problem documents (RFC 9457): the same one sentence that the library says, and a name to tell it by."""

from __future__ import annotations

from http import HTTPStatus

from starlette.exceptions import HTTPException

from gramian.core.plain import Plain
from gramian.errors import FormatError, GramianError, UnknownIdError
from gramian.serve.store import RepeatedKeyError, StoreError

__all__ = ["MEDIA_TYPE", "Problem", "as_problem", "document", "overloaded"]

MEDIA_TYPE = "application/problem+json"
# The name of each kind and its status.
KINDS = {
    "bad-request": 400, "unauthorized": 401, "forbidden": 403, "not-found": 404, "unknown-id": 404,
    "method-not-allowed": 405, "timeout": 408, "repeated-key": 409, "damaged-model": 409, "too-large": 413,
    "wrong-media-type": 415, "bad-input": 422, "too-many-requests": 429, "internal": 500, "unavailable": 503,
}  # fmt: skip


class Problem(HTTPException):
    """An answer that is an error: a kind of :data:`KINDS`, one sentence, and headers to send with it.

    (An HTTPException, since those alone come through FastAPI's reading of a body as they are.)
    """

    def __init__(self, kind: str, detail: str, *, headers: dict[str, str] | None = None, **more: object) -> None:
        super().__init__(KINDS[kind], detail, headers or {})
        self.kind, self.more = kind, more

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.status_code


def document(problem: Problem) -> Plain:
    """The members of the problem document."""
    return {
        "type": f"urn:gramian:problem:{problem.kind}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": str(problem.detail),
        **problem.more,
    }


def as_problem(error: GramianError) -> Problem:
    """What an error of the library is to a client."""
    kind = "bad-input"
    if isinstance(error, UnknownIdError):
        kind = "unknown-id"
    elif isinstance(error, RepeatedKeyError):
        kind = "repeated-key"
    elif isinstance(error, FormatError):
        kind = "damaged-model"
    elif isinstance(error, StoreError):
        return Problem("unavailable", str(error), headers={"Retry-After": "5"})
    return Problem(kind, str(error))


def overloaded() -> Problem:
    """Too much waits already."""
    text = "The server has as much to do as it may have waiting; try again in a second."
    return Problem("unavailable", text, headers={"Retry-After": "1"})
