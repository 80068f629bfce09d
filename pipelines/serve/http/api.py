# No `from __future__ import annotations` here: FastAPI must see the models that are made within a function.
"""The HTTP interface: its paths, and the middleware in front of them."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from fastapi_offline import FastAPIOffline

from kcm.bundle.answers import Input
from pipelines.serve.cascade.explanations import Explanation
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.config import LOOPBACK_NAMES, LimitsConfig, ServeConfig
from pipelines.serve.http.errors import add_handlers
from pipelines.serve.http.json_route import JsonRoute
from pipelines.serve.http.keys import Keys
from pipelines.serve.http.labels_api import add_labels
from pipelines.serve.http.middleware.access import DOCS, Access, AllowedHosts
from pipelines.serve.http.middleware.body import BodyLimit
from pipelines.serve.http.middleware.requestlog import Log, RequestLog, to_logger
from pipelines.serve.http.middleware.room import Room
from pipelines.serve.http.openai_api import add_openai_door
from pipelines.serve.http.requests import content_of, explain_request, feedback_request, predict_request
from pipelines.serve.http.site import add_site
from pipelines.serve.log.entries import Feedback
from pipelines.serve.rate import RateLimit
from pipelines.serve.schemas import FeedbackResponse, LoopRecord, ModelCard, PredictResponse, Problem, Refusal, Status


def create_api(
    service: CascadeService,
    limits: LimitsConfig,
    keys: Keys | None = None,
    rate_limit: RateLimit | None = None,
    log: Log = to_logger,
    hosts: Sequence[str] = LOOPBACK_NAMES,
    room: ServeConfig | None = None,
) -> FastAPI:
    """The application in front of `service`; without `keys` anyone may call, without `room` any number at once.

    `log` is called with the fields of each request's log line; `hosts` are the host names that are served.
    """
    api = FastAPIOffline(
        docs_url=DOCS,
        redoc_url=None,
        static_url=f"{DOCS}/files",
        title="KCM",
        description="A small collaborator answers what it is sure of; a large model answers the rest.",
        responses={status: {"model": Problem} for status in (400, 401, 408, 413, 421, 422, 429, 500, 503, 504)},
    )
    api.router.route_class = JsonRoute
    PredictRequest, ExplainRequest = predict_request(limits), explain_request(limits)
    FeedbackRequest = feedback_request(limits)

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
    async def explain(body: ExplainRequest, request: Request) -> Explanation:  # type: ignore[valid-type]
        """Say why one item is decided as it is: words, features with their edge functions, and the prompt.

        It costs as much as one item per word. The answer repeats the text, within the prompt.
        """
        given = Input(content_of(body.input), body.input.task)  # type: ignore[attr-defined]
        found = await service.explain(given, body.top, request.state.origin.request_id)  # type: ignore[attr-defined]
        request.state.log["model_version"] = found.model_version
        return found

    @api.post("/v1/feedback", responses={status: {"model": Problem} for status in (404, 409)})
    async def feedback(body: FeedbackRequest, request: Request) -> FeedbackResponse:  # type: ignore[valid-type]
        """Say what was right. Answered once it is stored for good; sent again, it changes nothing."""
        labels = [Feedback(**dict(item)) for item in body.labels]  # type: ignore[attr-defined]
        request.state.log["feedback_for"] = body.request_id  # type: ignore[attr-defined]
        caller = request.state.origin.caller
        return await service.feedback(body.request_id, caller, labels)  # type: ignore[attr-defined]

    @api.get("/v1/model")
    async def model() -> ModelCard:
        """Version, policy, certificate, lineage and traffic of the model that answers."""
        return service.about.card()

    @api.get("/v1/loop")
    async def loop() -> LoopRecord:
        """What every version has answered, saved and lost since the log began; read again every few seconds."""
        return await service.about.loop()

    @api.get("/healthz")
    async def healthz() -> Status:
        """The process is alive."""
        return Status(status="ok")

    @api.get("/readyz")
    async def readyz() -> Status:
        """One input has gone the whole way, through the collaborator and the large model."""
        if waiting := service.waiting_for():
            raise Refusal(503, f"not ready: {waiting}", retry_after_s=1)
        return Status(status="ready", degraded=service.degraded())

    @api.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        """What all replicas have counted, for Prometheus."""
        return await service.metrics()

    add_openai_door(api, service, limits)
    add_labels(api, service, limits)
    add_site(api, service)
    add_handlers(api)
    _add_middleware(api, limits, keys, rate_limit, log, hosts, service.failed, room)
    return api


def _add_middleware(
    api: FastAPI,
    limits: LimitsConfig,
    keys: Keys | None,
    rate_limit: RateLimit | None,
    log: Log,
    hosts: Sequence[str],
    failed: Callable[[], None],
    room: ServeConfig | None,
) -> None:
    """Add the middleware from the inside out: bodies are read of allowed callers alone, and every request is logged."""
    middleware: list[tuple[Any, dict[str, Any]]] = [
        (BodyLimit, {"limits": limits}),
        *([(Room, {"config": room})] if room else []),
        (Access, {"keys": keys, "rate_limit": rate_limit}),
        (AllowedHosts, {"hosts": hosts}),
        (RequestLog, {"log": log, "failed": failed}),
    ]
    for kind, options in middleware:
        api.add_middleware(kind, **options)
