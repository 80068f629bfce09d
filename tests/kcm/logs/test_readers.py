"""Each format gives the same call of the same exchange; the samples follow the published schemas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kcm.inputs.location import Location
from kcm.large.prices import listed_prices
from kcm.logs.call import LoggedCall, seconds
from kcm.logs.read import Log, Reading, log_format
from kcm.logs.tally import cost_of

SAMPLES = Path(__file__).parent / "samples"
SYSTEM = {"role": "system", "content": "Sort support tickets into queues. Answer with the queue alone."}
USER = {"role": "user", "content": "Ticket: I paid twice\nQueue:"}
BEGIN = 1_760_000_000.0
FORMATS = {
    "openai.jsonl": "OpenAI requests",
    "litellm.jsonl": "LiteLLM spend log",
    "langfuse.jsonl": "Langfuse export",
    "otel.jsonl": "OpenTelemetry spans",
    "table.csv": "table",
}


def read(name: str) -> tuple[list[LoggedCall], Reading]:
    reading = Reading()
    return list(Log(Location.of(SAMPLES / name)).calls(reading)), reading


@pytest.mark.parametrize("name", FORMATS)
def test_answered_calls_of_a_format(name: str) -> None:
    """Messages, reply, model, tokens and time are those of the exchange, whatever variant of the format has them."""
    calls, reading = read(name)
    answered = [call for call in calls if not call.failed]
    messages = (USER,) if name == "table.csv" else (SYSTEM, USER)
    for call in answered:
        assert call.messages == messages
        assert call.reply == "billing"
        assert call.model == "gpt-4o-mini-2024-07-18"
        assert (call.num_read, call.num_written) == (61, 1)
        assert call.time == BEGIN
    assert len(answered) == {"otel.jsonl": 3, "table.csv": 1}.get(name, 2)
    assert list(reading.formats) == [FORMATS[name]]
    assert not reading.faults


@pytest.mark.parametrize("per_second", [1, 1e3, 1e6, 1e9])
def test_time_is_read_in_any_unit(per_second: float) -> None:
    assert seconds(BEGIN * per_second) == seconds(str(BEGIN * per_second)) == BEGIN


def test_fine_tuning_file_is_a_log(tmp_path: Path) -> None:
    """Its answers are labels that somebody has already paid for."""
    path = tmp_path / "tuning.jsonl"
    path.write_text(json.dumps({"messages": [SYSTEM, USER, {"role": "assistant", "content": "billing"}]}) + "\n")
    (call,) = Log(Location.of(path)).calls(Reading())
    assert (call.messages, call.reply) == ((SYSTEM, USER), "billing")
    assert log_format(Location.of(path)) == FORMATS["openai.jsonl"]


@pytest.mark.parametrize("name", FORMATS)
def test_failed_calls_are_no_answers(name: str) -> None:
    failed = [call for call in read(name)[0] if call.failed]
    assert len(failed) == 1
    assert failed[0].reply is None


@pytest.mark.parametrize("name", FORMATS)
def test_cost_of_log_and_of_price_list(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """61 tokens at $0.15 and 1 at $0.60 a million, as the formats with costs have it too."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    costs = [cost_of(call, listed_prices()) for call in read(name)[0] if not call.failed]
    assert costs == [pytest.approx(0.00000975)] * len(costs)


@pytest.mark.parametrize("name", FORMATS)
def test_headers_and_keys_are_not_read(name: str) -> None:
    assert "sk-" not in repr(read(name))


def test_prices_of_the_user_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "kcm").mkdir()
    (tmp_path / "kcm" / "prices.yaml").write_text("gpt-4o-mini: [1, 2]\nown: [3, 4]\n")
    call = LoggedCall((), "x", model="own", num_read=1_000_000, num_written=1_000_000)
    assert cost_of(call, listed_prices()) == 7
    assert listed_prices()["gpt-4o-mini"] == (1, 2)
    assert listed_prices()["gpt-4o"] == (2.5, 10)
