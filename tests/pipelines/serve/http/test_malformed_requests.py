"""Promise: no request, however malformed, is answered by a 5xx, and every answer is as the OpenAPI document says."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS: list[Any] = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]
PATHS = ["/v1/predict", "/v1/explain", "/v1/feedback", "/v1/chat/completions"]


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.slow
def test_no_request_breaks_the_service(
    client: TestClient, caplog: pytest.LogCaptureFixture, path: str, mode: GenerationMode
) -> None:
    """Promise: no request that the documentation allows or forbids is answered by a 500."""
    caplog.set_level(logging.ERROR, logger="ray.serve")
    document = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    statuses = set()

    @settings(max_examples=70, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=document[path]["POST"].as_strategy(generation_mode=mode))
    def every_request_is_answered_as_documented(case: schemathesis.Case) -> None:
        response = case.call()
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    every_request_is_answered_as_documented()
    assert statuses <= {200, 400, 404, 413, 422}
    assert len(statuses) > 1 or mode is GenerationMode.POSITIVE


@settings(max_examples=150, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=500), path=st.sampled_from(PATHS), kind=st.sampled_from(["json", "x-none"]))
def test_bytes_of_any_kind_are_the_client_s_fault(client: TestClient, content: bytes, path: str, kind: str) -> None:
    response = client.post(path, content=content, headers={"content-type": f"application/{kind}"})
    assert response.status_code in (400, 413, 422)
    assert "\n" not in response.json()["detail"]
