# No `from __future__ import annotations` here: FastAPI must see the models that are made within a function.
"""The HTTP interface: its paths, the shapes of requests and answers, and what a refused client is told.

It knows no Ray: whatever has `predict`, `card` and `waiting_for` can stand behind it.
"""

import difflib
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError

from kcm.cascade.certificate import Certificate
from kcm.cascade.policy import Policy
from kcm.cascade.runtime import Answer, Input
from pipelines.serve.config import LimitsConfig

REQUEST_ID = "x-request-id"  # set by Ray Serve's proxy where the client sent none


class PredictResponse(BaseModel):
    """Answers in the order of the request's inputs, all by one version of the model."""

    model_version: str
    request_id: str
    answers: list[Answer]


class ModelCard(BaseModel):
    """The model that is being served."""

    model_version: str
    digest: Annotated[str, Field(description="Digest of the bundle.")]
    labels: list[str]
    tasks: list[str]
    encoder: str
    large: str
    policy: Policy
    certificate: Annotated[Certificate | None, Field(description="Of requests that carry no task.")]
    task_certificates: dict[str, Certificate]
    lineage: dict[str, Any]


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str


class Refusal(Exception):
    """A request that cannot be answered now; `retry_after_s` is None where trying again soon will not help."""

    def __init__(self, status: int, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_after_s = status, detail, retry_after_s


class Service(Protocol):
    """What the interface needs of the door behind it."""

    async def predict(self, inputs: Sequence[Input], request_id: str) -> PredictResponse:
        """Answer a request, or raise Refusal."""

    def card(self) -> ModelCard:
        """The model that is being served."""

    def waiting_for(self) -> str | None:
        """What must happen before requests can be answered; None once they can."""


def create_api(service: Service, limits: LimitsConfig, task_names: Sequence[str]) -> FastAPI:
    """The application in front of `service`."""
    api = FastAPI(
        title="KCM",
        description="A small collaborator answers what it is sure of; a large model answers the rest.",
        responses={status: {"model": Problem} for status in (429, 503, 504)},
    )
    PredictRequest = _request_model(limits, task_names)

    @api.post("/v1/predict")
    async def predict(body: PredictRequest, request: Request) -> PredictResponse:  # type: ignore[valid-type]
        """Classify one item or many."""
        inputs = [Input(item.text, item.task) for item in body.inputs]  # type: ignore[attr-defined]
        return await service.predict(inputs, request.headers.get(REQUEST_ID) or uuid.uuid4().hex)

    @api.get("/v1/model")
    async def model() -> ModelCard:
        """Version, policy, certificate and lineage of the model that answers."""
        return service.card()

    @api.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @api.get("/readyz")
    async def readyz() -> dict[str, str]:
        """One input has gone the whole way, through the collaborator and the large model."""
        if waiting := service.waiting_for():
            raise Refusal(503, f"not ready: {waiting}", retry_after_s=1)
        return {"status": "ready"}

    api.add_exception_handler(Refusal, _refused)
    api.add_exception_handler(RequestValidationError, _invalid)
    return api


def _request_model(limits: LimitsConfig, task_names: Sequence[str]) -> type[BaseModel]:
    """The body of a request within `limits`, whose tasks, where it carries them, are known."""

    def filled(text: str) -> str:
        if not text.strip():
            raise PydanticCustomError("empty_text", "The text is empty: there is nothing to classify")
        return text

    def known(task: str | None) -> str | None:
        if task is not None and task not in task_names:
            nearest = difflib.get_close_matches(task, task_names, n=1, cutoff=0.0)
            hint = {"hint": f", did you mean '{nearest[0]}'?" if nearest else ""}
            raise PydanticCustomError("unknown_task", "There is no such task{hint}", hint)
        return task

    text = Annotated[str, Field(max_length=limits.max_text_length, examples=["What a film!"]), AfterValidator(filled)]
    task = Annotated[str | None, Field(description="One of the model's tasks, if known."), AfterValidator(known)]
    strict = ConfigDict(extra="forbid")
    item = create_model("Item", __config__=strict, text=(text, ...), task=(task, None))
    inputs = Annotated[list[item], Field(min_length=1, max_length=limits.max_items)]  # type: ignore[valid-type]
    return create_model("PredictRequest", __config__=strict, inputs=(inputs, ...))


async def _refused(_: Request, refusal: Exception) -> JSONResponse:
    assert isinstance(refusal, Refusal)
    headers = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    return JSONResponse({"detail": refusal.detail}, status_code=refusal.status, headers=headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """FastAPI's own shape, without the input: it may be long, private, or not even encodable."""
    assert isinstance(error, RequestValidationError)
    problems = [{"loc": list(e["loc"]), "msg": e["msg"], "type": e["type"]} for e in error.errors()]
    return JSONResponse({"detail": problems}, status_code=422)
