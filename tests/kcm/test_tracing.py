import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kcm import tracing
from kcm.tracing import span, trace_headers, trace_id


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_TRACER", provider.get_tracer("test"))
    return exporter


def test_outside_a_trace_nothing_begins_one(exported: InMemorySpanExporter) -> None:
    with span("judge"):
        assert trace_id() is None
        assert trace_headers() == {}
    assert exported.get_finished_spans() == ()


def test_span_is_sent_and_shows_only_the_type_of_an_error(
    exported: InMemorySpanExporter,
) -> None:
    around = trace.SpanContext(trace_id=7, span_id=8, is_remote=True, trace_flags=trace.TraceFlags(1))
    current = trace.use_span(trace.NonRecordingSpan(around))

    def fail() -> None:
        assert trace_headers()["traceparent"].split("-")[1] == trace_id() == f"{7:032x}"
        raise ValueError("a secret")

    with pytest.raises(ValueError, match="a secret"), current, span("judge", items=2):
        fail()
    (sent,) = exported.get_finished_spans()
    assert (sent.name, dict(sent.attributes or {}), sent.status.description) == ("judge", {"items": 2}, "ValueError")
    assert "a secret" not in sent.to_json()
