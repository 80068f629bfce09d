"""A request's trace, from its client through the HTTP replica and large model to the server that the model asks."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from ray import serve

from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.large.adapters.openai import OpenAiConfig, openai_identity
from pipelines.serve.config import LargeReplicaConfig, ServeConfig
from pipelines.serve.deploy.app import build_app, start
from pipelines.serve.release import Release
from pipelines.serve.sources import FixedSource
from tests.fake_upstream import FakeUpstream
from tests.ports import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

LABELS = ("negative", "positive")
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"  # those of the W3C's own example
TEXT = "a text that is nobody's business"


@pytest.fixture
def spans(trace_collector: str) -> Iterator[list[Span]]:
    """What arrives at a collector of this test's own, where the cluster sends its spans."""
    received: list[Span] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            received.extend(span for each in sent.resource_spans for scope in each.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", urlsplit(trace_collector).port or 0), Collector)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield received
    server.shutdown()
    server.server_close()


@pytest.fixture
def url(quick_bundle: Callable[..., Path], upstream: FakeUpstream, assets_dir: Path) -> Iterator[str]:
    """A service that keeps nothing and asks `upstream`."""
    large = OpenAiConfig(model="big", base_url=upstream.base_url, api_key_env=None)
    bundle = quick_bundle(
        large=large,
        large_identity=openai_identity(large, LABELS),
        large_head=None,
        policy=Policy(decision=ESCALATE_ALL),
    )
    patient = {"timeout_s": 50.0, "attempt_timeout_s": 50.0}  # a busy machine asks it once, too
    replicas = LargeReplicaConfig(cpus=0.2, upstreams=(large.upstream,), **patient)
    config = ServeConfig(port=free_port(), cpus=0.2, timeout_s=100.0, judge_timeout_s=50.0, large=replicas)
    yield start(build_app(FixedSource(Release(version="1", bundle=bundle)), config, assets_dir), config)
    serve.shutdown()


def test_trace_leads_from_client_to_the_large_server(url: str, upstream: FakeUpstream, spans: list[Span]) -> None:
    """Promise: a trace leads from the client to the large models server."""

    def ask(**headers: str) -> str:
        body = {"inputs": [{"text": TEXT + str(headers)}]}
        answer = httpx.post(f"{url}/v1/predict", json=body, headers=headers, timeout=120)
        assert answer.json()["answers"][0]["route"] == "large"
        return str(answer.json()["request_id"])

    ask()  # sampled by nobody
    assert "traceparent" not in upstream.headers[-1]
    request_id = ask(traceparent=f"00-{TRACE}-{SPAN}-01")

    def are_complete() -> bool:
        """A span is sent when it ends, and so after those within it, by each process in its own time."""
        arrived = {span.span_id.hex() for span in spans} | {SPAN}
        names = {span.name for span in spans}
        return {"judge", "escalate", "chat big"} <= names and {s.parent_span_id.hex() for s in spans} <= arrived

    wait_until(are_complete)
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    named, by_id = {span.name: span for span in spans}, {span.span_id.hex(): span for span in spans}

    def above(span: Span) -> list[str]:
        """The names of the spans around it, the nearest first, and the client's own."""
        parent = span.parent_span_id.hex()
        return ["client"] if parent == SPAN else [by_id[parent].name, *above(by_id[parent])]

    assert "escalate" in above(named["chat big"])
    assert above(named["judge"]) == above(named["escalate"])
    assert any(name.startswith("replica_handle_request http") for name in above(named["judge"]))
    assert above(named["judge"])[-1] == "client"
    version, trace, parent, flags = upstream.headers[-1]["traceparent"].split("-")
    assert (version, trace, by_id[parent].name, flags) == ("00", TRACE, "chat big", "01")
    attributes = {each.key: each.value.string_value for each in named["judge"].attributes}
    assert attributes["request_id"] == request_id
    assert not any(TEXT in str(span) for span in spans)
