from __future__ import annotations

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient
from pydantic import BaseModel

from pipelines.serve.http.errors import add_handlers
from pipelines.serve.http.json_route import JsonRoute


class Number(BaseModel):
    number: int


@pytest.fixture(params=[JsonRoute, None], ids=["ours", "FastAPI's"])
def client(request: pytest.FixtureRequest) -> TestClient:
    api = FastAPI()
    if request.param:
        api.router.route_class = request.param
    add_handlers(api)

    @api.post("/double")
    async def double(body: Number, request: Request) -> Number:
        """Twice the number."""
        return Number(number=2 * body.number)

    @api.post("/teapot")
    async def teapot(body: Number, request: Request) -> Response:
        return Response(str(body.number), 418)

    @api.get("/numbers/{number}")
    async def number(number: int) -> Number:
        return Number(number=number)

    return TestClient(api)


def test_models_go_in_and_come_out_as_json(client: TestClient) -> None:
    answer = client.post("/double", json={"number": 4})
    assert (answer.status_code, answer.json()) == (200, {"number": 8})
    assert answer.headers["content-type"] == "application/json"


def test_a_response_is_sent_as_it_is(client: TestClient) -> None:
    answer = client.post("/teapot", json={"number": 4})
    assert (answer.status_code, answer.text) == (418, "4")


def test_routes_of_another_kind_stay_as_they_are(client: TestClient) -> None:
    assert client.get("/numbers/3").json() == {"number": 3}
    assert client.get("/numbers/three").status_code == 422


@pytest.mark.parametrize(("body", "place"), [({"number": "x"}, "number"), ({}, "number"), ([1], "body")], ids=str)
def test_the_error_on_a_body_that_is_not_the_model_says_where(client: TestClient, body: object, place: str) -> None:
    answer = client.post("/double", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{place}: ")


def test_a_byte_order_mark_is_passed_over(client: TestClient) -> None:
    content = b"\xef\xbb\xbf" + b'{"number": 4}'
    answer = client.post("/double", content=content, headers={"content-type": "application/json"})
    assert answer.json() == {"number": 8}


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/ld+json"])
def test_json_has_several_names(client: TestClient, kind: str) -> None:
    assert client.post("/double", content=b'{"number": 4}', headers={"content-type": kind}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "text/json", ""])
def test_what_a_page_of_another_origin_may_send_unasked_is_refused(client: TestClient, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    assert client.post("/double", content=b'{"number": 4}', headers=headers).status_code == 422


def test_the_documentation_is_that_of_any_route(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/double"]["post"]
    assert operation["description"] == "Twice the number."
    for place in (operation["requestBody"], operation["responses"]["200"]):
        assert place["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Number"}
