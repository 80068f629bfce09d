"""The HTTP status of every error: the one place that decides it."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.serve.config import RETRY_AFTER_S
from pipelines.serve.errors import (
    BusyError,
    InvalidInputError,
    LargeFailedError,
    LargeTimeoutError,
    LogAwayError,
    NotStoredError,
    RequestError,
    SmallSideBusyError,
    SmallSideError,
)
from pipelines.serve.log.entries import LabelConflictError, TooManyLabelsError, UnknownAnswerError

STATUSES: Mapping[type[RequestError], tuple[int, int | None]] = {  # status, and seconds until a retry may succeed
    InvalidInputError: (422, None),
    NotStoredError: (404, None),
    UnknownAnswerError: (404, None),
    LabelConflictError: (409, None),
    TooManyLabelsError: (429, RETRY_AFTER_S),
    BusyError: (429, RETRY_AFTER_S),
    SmallSideBusyError: (429, RETRY_AFTER_S),
    SmallSideError: (503, RETRY_AFTER_S),
    LargeFailedError: (503, RETRY_AFTER_S),
    LogAwayError: (503, RETRY_AFTER_S),
    LargeTimeoutError: (504, RETRY_AFTER_S),
}


class Refusal(RequestError):
    """A refusal of the HTTP interface itself; `retry_after_s` is None if a retry would be refused again."""

    def __init__(
        self, status: int, detail: str, retry_after_s: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        retry = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self.headers = retry | dict(headers or {})


def refusal_of(error: RequestError) -> Refusal:
    """The refusal that an error becomes."""
    if isinstance(error, Refusal):
        return error
    status, retry_after_s = STATUSES[type(error)]
    return Refusal(status, error.detail, retry_after_s)


def status_of(error: Exception) -> int:
    """The status of the response to a request that ends with this error; 500 for an unexpected one."""
    return refusal_of(error).status if isinstance(error, RequestError) else 500
