"""Why a request is not answered. No error names an HTTP status: `pipelines.serve.http.refusals` has the table."""

from __future__ import annotations


class RequestError(Exception):
    """A request that is not answered; `detail` tells its caller why, in one line."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InvalidInputError(RequestError):
    """The request names something that the model does not know, or holds something that it cannot read."""


class BusyError(RequestError):
    """Too much waits already."""


class SmallSideError(RequestError):
    """The small side gave no judgement, or none in time."""


class SmallSideBusyError(SmallSideError):
    """Too many items wait to be judged."""


class LargeFailedError(RequestError):
    """The large model failed, and the policy has no other answer."""


class LargeTimeoutError(RequestError):
    """The large model took too long, and the policy has no other answer."""


class NotStoredError(RequestError):
    """Nothing is stored here."""


class LogAwayError(RequestError):
    """The log can be neither read nor written now."""
