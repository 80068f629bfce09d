# No `from __future__ import annotations` here: FastAPI must see the models that are made within a function.
"""The HTTP interface: its routes, and the middleware in front of them."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline

from kcm.bundle.answers import Input
from pipelines.serve.breaker import RateLimit
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.config import ServeConfig
from pipelines.serve.http.bodies import (
    add_handlers,
    content_of,
    explain_request,
    feedback_request,
    predict_request,
)
from pipelines.serve.http.keys import Keys
from pipelines.serve.http.middleware import DOCS, Access, AllowedHosts, BodyLimit, Downloads, RequestLimit, RequestLog
from pipelines.serve.http.openai_api import add_openai_routes
from pipelines.serve.http.page import add_pages
from pipelines.serve.http.refusals import Refusal
from pipelines.serve.log.entries import Feedback
from pipelines.serve.schemas import (
    ExplainResponse,
    FeedbackResponse,
    Health,
    ModelCard,
    PredictResponse,
    Problem,
)


def create_api(
    service: CascadeService, config: ServeConfig, keys: Keys | None = None, rate_limit: RateLimit | None = None
) -> FastAPI:
    """The application in front of `service`; without `keys` anyone may call."""
    api = FastAPIOffline(
        docs_url=DOCS,
        redoc_url=None,
        static_url=f"{DOCS}/files",
        title="KCM",
        description="A small collaborator answers what it is sure of; a large model answers the rest.",
        responses=_problems(400, 401, 408, 413, 421, 422, 429, 500, 503, 504),
        # Ray Serve begins the trace of a request: FastAPI would begin another, and send messages of errors, which may
        # repeat an input.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    _add_predictions(api, service, config)
    _add_feedback(api, service, config)
    _add_states(api, service)
    add_openai_routes(api, service, config.limits)
    add_pages(api, service)
    add_handlers(api)
    # From the inside out: a place is for a request whose body is there, bodies are read of allowed callers alone, and
    # every request is logged.
    api.add_middleware(Downloads)
    api.add_middleware(RequestLimit, config=config, metrics=service.metrics)
    api.add_middleware(BodyLimit, limits=config.limits, metrics=service.metrics)
    api.add_middleware(Access, keys=keys, rate_limit=rate_limit)
    api.add_middleware(AllowedHosts, hosts=config.hosts)
    api.add_middleware(RequestLog, failed=service.metrics.failed)
    return api


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in statuses}


def _add_predictions(api: FastAPI, service: CascadeService, config: ServeConfig) -> None:
    PredictRequest, ExplainRequest = predict_request(config.limits), explain_request(config.limits)

    @api.post("/v1/predict")
    async def predict(body: PredictRequest, request: Request) -> PredictResponse:  # type: ignore[valid-type]
        """Classify one item or many."""
        inputs = [
            Input(content_of(item), item.task, group=item.group)
            for item in body.inputs  # type: ignore[attr-defined]
        ]
        response = await service.predict(inputs, request.state.origin)
        request.state.log |= {
            "model_version": response.model_version,
            "routes": [answer.route for answer in response.answers],
        }
        return response

    @api.post("/v1/explain")
    async def explain(body: ExplainRequest, request: Request) -> ExplainResponse:  # type: ignore[valid-type]
        """Say why one item is decided as it is: words, features with their edge functions, and the prompt.

        It costs as much as one item per word. The answer repeats the text, within the prompt.
        """
        example = Input(content_of(body.input), body.input.task)  # type: ignore[attr-defined]
        response = await service.explain(example, body.top, request.state.origin.request_id)  # type: ignore[attr-defined]
        request.state.log["model_version"] = response.model_version
        return response


def _add_feedback(api: FastAPI, service: CascadeService, config: ServeConfig) -> None:
    FeedbackRequest = feedback_request(config.limits)

    @api.post("/v1/feedback", responses=_problems(404, 409))
    async def feedback(body: FeedbackRequest, request: Request) -> FeedbackResponse:  # type: ignore[valid-type]
        """Say what was right. Answered once it is stored for good; sent again, it changes nothing."""
        labels = [Feedback(**dict(item)) for item in body.labels]  # type: ignore[attr-defined]
        request.state.log["feedback_for"] = body.request_id  # type: ignore[attr-defined]
        caller = request.state.origin.caller
        return await service.feedback(body.request_id, caller, labels)  # type: ignore[attr-defined]


def _add_states(api: FastAPI, service: CascadeService) -> None:
    @api.get("/v1/model")
    async def model() -> ModelCard:
        """Version, policy, certificate, lineage and traffic of the model that answers."""
        return service.cards.card()

    @api.get("/healthz")
    async def healthz() -> Health:
        """The process is alive."""
        return Health(status="ok")

    @api.get("/readyz")
    async def readyz() -> Health:
        """One input has gone the whole way, through the collaborator and the large model."""
        if waiting := service.waiting_for():
            raise Refusal(503, f"not ready: {waiting}", retry_after_s=1)
        return Health(status="ready", degraded=service.degraded())
