"""Every error of a request has one HTTP status, which a caller gets with its reason and the time to come back."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from pipelines.serve import errors
from pipelines.serve.errors import RequestError
from pipelines.serve.http.refusals import STATUSES, Refusal, status_of
from pipelines.serve.log import entries
from pipelines.serve.log.entries import RejectedError
from tests.pipelines.serve.conftest import StubService

ONE = {"inputs": [{"text": "a film"}]}
DOCUMENTED = [  # docs/serving.md
    (errors.InvalidInputError, 422, None),
    (errors.NotStoredError, 404, None),
    (entries.UnknownAnswerError, 404, None),
    (entries.LabelConflictError, 409, None),
    (entries.TooManyLabelsError, 429, "1"),
    (errors.BusyError, 429, "1"),
    (errors.SmallSideBusyError, 429, "1"),
    (errors.SmallSideError, 503, "1"),
    (errors.LargeFailedError, 503, "1"),
    (errors.LogAwayError, 503, "1"),
    (errors.LargeTimeoutError, 504, "1"),
]


@pytest.mark.parametrize(("error", "status", "retry_after"), DOCUMENTED)
def test_error_has_its_status_and_time_to_come_back(
    client: TestClient, service: StubService, error: type[RequestError], status: int, retry_after: str | None
) -> None:
    service.refusal = error("for a reason")
    response = client.post("/v1/predict", json=ONE)
    body = {"detail": "for a reason", "error": {"message": "for a reason", "code": status}}
    assert (response.status_code, response.json()) == (status, body)
    assert response.headers.get("retry-after") == retry_after
    assert status_of(error("for a reason")) == status


def test_no_error_lacks_a_status() -> None:
    """Promise: whoever adds an error is told to add its status; what is no refusal is counted as 500."""

    def below(error: type[RequestError]) -> Iterator[type[RequestError]]:
        yield error
        for subclass in error.__subclasses__():
            yield from below(subclass)

    assert set(below(RequestError)) - {RequestError, RejectedError, Refusal} == STATUSES.keys()
    assert {error for error, _, _ in DOCUMENTED} == STATUSES.keys()
    assert status_of(ValueError("unforeseen")) == 500
