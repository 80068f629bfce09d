"""The bodies of requests, within the configured limits, and of refusals, ours and the framework's."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException

from kcm.inputs.content import Content, PartError
from kcm.inputs.vectors import vector_of
from pipelines.serve.config import MAX_FEATURES, LimitsConfig
from pipelines.serve.errors import RequestError
from pipelines.serve.http.refusals import Refusal, refusal_of

MAX_EDGES = 50
MAX_PROBLEMS = 5  # that one refusal lists
MAX_NAME = 200  # characters of a label or a task
REQUEST_ID_PATTERN = r"^[\x21-\x7e]{1,128}$"

_STRICT = ConfigDict(extra="forbid")


def predict_request(limits: LimitsConfig) -> type[BaseModel]:
    """The body of `POST /v1/predict`."""
    item: Any = _item(limits)
    inputs = Annotated[list[item], Field(min_length=1, max_length=limits.max_items)]
    return create_model("PredictRequest", __config__=_STRICT, inputs=(inputs, ...))


def explain_request(limits: LimitsConfig) -> type[BaseModel]:
    """The body of `POST /v1/explain`."""
    top = Annotated[int, Field(ge=1, le=MAX_EDGES, description="Contributions that are listed for each network.")]
    return create_model("ExplainRequest", __config__=_STRICT, input=(_item(limits), ...), top=(top, 6))


@lru_cache
def _item(limits: LimitsConfig) -> type[BaseModel]:
    """One input; the same model in every body, so that the documentation has one of it."""
    text = Annotated[
        str, Field(min_length=1, max_length=limits.max_text_length, examples=["What a film!"]), AfterValidator(_filled)
    ]
    image = Annotated[
        str,
        Field(min_length=4, description="The file of a picture in base64, for models that read pictures."),
        AfterValidator(partial(_decoded, max_bytes=limits.max_image_bytes)),
    ]
    features = Annotated[
        list[Annotated[float, Field(allow_inf_nan=False)]],
        Field(
            min_length=1,
            max_length=MAX_FEATURES,
            fail_fast=True,
            description="The vector of an input, for models that read vectors: as long as theirs.",
        ),
        AfterValidator(_vector),
    ]
    task = Annotated[str | None, Field(max_length=MAX_NAME, description="One of the model's tasks, if known.")]
    group = Annotated[
        str,
        Field(max_length=MAX_NAME, description="What it belongs to, such as a conversation: that is not split apart."),
    ]
    validators: dict[str, Any] = {"something": model_validator(mode="after")(_something)}
    return create_model(
        "Item",
        __config__=_STRICT,
        __validators__=validators,
        text=(text, ""),
        image=(image, b""),
        features=(features | None, None),
        task=(task, None),
        group=(group, ""),
    )


def content_of(item: Any) -> Content:
    """What an item of a request shows."""
    return Content(item.text, item.image, vector=None if item.features is None else vector_of(item.features))


def feedback_request(limits: LimitsConfig) -> type[BaseModel]:
    """The body of `POST /v1/feedback`."""
    fields: dict[str, Any] = {
        "item": (
            Annotated[int, Field(ge=0, lt=limits.max_items, description="Position of the input in its request.")],
            0,
        ),
        "label": (Annotated[str, Field(min_length=1, max_length=MAX_NAME, description="The true label.")], ...),
        "text": (
            Annotated[
                str | None,
                Field(max_length=limits.max_text_length, description="The input, if it is to be learned from."),
            ],
            None,
        ),
        "task": (Annotated[str | None, Field(max_length=MAX_NAME)], None),
    }
    item = create_model("FeedbackItem", __config__=_STRICT, **fields)
    request_id = Annotated[str, Field(pattern=REQUEST_ID_PATTERN, description="Of the request that was answered.")]
    labels = Annotated[
        list[item],
        Field(min_length=1, max_length=limits.max_items),
        AfterValidator(_distinct),
    ]
    return create_model("FeedbackRequest", __config__=_STRICT, request_id=(request_id, ...), labels=(labels, ...))


def _decoded(image: str, max_bytes: int) -> bytes:
    try:
        data = base64.b64decode(image, validate=True)
    except ValueError:
        raise PydanticCustomError("not_base64", "An image must be in base64") from None
    if len(data) > max_bytes:
        raise PydanticCustomError("image_too_long", "Image should have at most {limit} bytes", {"limit": max_bytes})
    return data


def _something(item: Any) -> Any:
    if not item.text and not item.image and item.features is None:
        raise PydanticCustomError("empty_item", "There is nothing to classify: give a text, an image or features")
    return item


def _vector(features: list[float]) -> list[float]:
    try:
        vector_of(features)
    except PartError as error:  # such as 1e300, which float32 has not
        raise PydanticCustomError("not_a_vector", "{reason}", {"reason": str(error)}) from None
    return features


def _filled(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty_text", "The text is empty: there is nothing to classify")
    return text


def _distinct(items: list[Any]) -> list[Any]:
    if len({item.item for item in items}) < len(items):
        raise PydanticCustomError("repeated_item", "Each item can have one label")
    return items


def add_handlers(api: FastAPI) -> None:
    """Let every refusal, of ours or of the framework, end in one line of JSON."""

    async def answered(_: Request, error: Exception) -> JSONResponse:
        match error:
            case RequestError():
                return refused(refusal_of(error))
            case RequestValidationError():
                return problem(422, explain(error.errors()))
            case HTTPException():
                return problem(error.status_code, error.detail, error.headers)
        raise error

    for kind in (RequestError, RequestValidationError, HTTPException):
        api.add_exception_handler(kind, answered)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The body of every refusal; `error` is where clients of OpenAI's interface look for the reason."""
    return JSONResponse({"detail": detail, "error": {"message": detail, "code": status}}, status, headers)


def refused(refusal: Refusal) -> JSONResponse:
    """The response to a refused request."""
    return problem(refusal.status, refusal.detail, refusal.headers)


def explain(problems: Sequence[Mapping[str, Any]]) -> str:
    """Each problem as `inputs[2].text: what is allowed`, without the input: it may be long, private, not encodable."""
    listed = [f"{_place(problem['loc'])}: {_message(problem)}" for problem in problems[:MAX_PROBLEMS]]
    more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
    return " ".join("; ".join(listed + more).split())


def _message(problem: Mapping[str, Any]) -> str:
    if problem["type"] != "model_attributes_type":
        return str(problem["msg"])
    is_body = len(problem["loc"]) == 1  # as curl sends it without a header
    return f"Input should be a JSON object{', sent as Content-Type: application/json' if is_body else ''}"


def _place(location: Sequence[int | str]) -> str:
    """`("body", "inputs", 2, "text")` as `inputs[2].text`. A part that a client made up is cut: it may be anything."""
    source, *parts = location
    place = ""
    for part in parts:
        name = str(part)[:40].encode("ascii", "replace").decode()
        place += f"[{part}]" if isinstance(part, int) else f".{name}" if place else name
    return place or str(source)
