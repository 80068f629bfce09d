"""What `kcm savings --serve` writes answers the log's own requests, and relays what the small model does not keep."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from jobs.cli import app
from jobs.work.service import configured, prepared
from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import load_small_side
from kcm.config import read_values
from pipelines.serve.http.api import create_api
from tests.fake_upstream import FakeUpstream, completion
from tests.kcm.logs.logs import FILLER, QUEUES, exchanges, openai_rows, write_lines
from tests.pipelines.serve.stubs import StubEscalation, service_of, version_of
from tests.tiny_bert import save_bert


def test_escalated_request_reaches_the_llm_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upstream: FakeUpstream
) -> None:
    """Every byte of it, and the reply comes back as it is; kcm asks nothing itself."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    calls = exchanges(1500, noise=0.1)
    write_lines(tmp_path / "log.jsonl", openai_rows(calls))
    encoder = save_bert(tmp_path / "bert", [*" ".join(QUEUES.values()).split(), *FILLER.split()])
    words = ["savings", "log.jsonl", "--serve", "serve.yaml", "--base-url", upstream.base_url, "--target", ".85"]
    assert CliRunner().invoke(app, [*words, "--encoder", str(encoder)]).exit_code == 0

    values = read_values(Path("serve.yaml"), ['serve.allowed_hosts=["testserver"]'])
    _, release, settings = prepared(None, Path("serve.bundle"), None, configured(values, "serve.yaml")[1])
    side = load_small_side(Bundle.read(release.bundle), settings.assets_path)
    escalation = StubEscalation(None)  # type: ignore[arg-type]  # nobody asks it
    version = version_of(side, escalation, settings.serve, encoder=side.encoder)
    service: Any = asyncio.run(service_of(version))

    routes = set()
    with TestClient(create_api(service, settings.serve)) as client:
        for call in [call for call in calls if len(call["messages"]) == 2][:60]:
            body = {"model": "gpt-4o-mini", "temperature": 0.4, "messages": call["messages"]}
            upstream.plan(completion(call["reply"]))
            reply = client.post("/v1/chat/completions", json=body)
            routes.add(route := reply.headers["x-kcm-route"])
            assert reply.json()["choices"][0]["message"]["content"] in QUEUES
            if route == "large":
                assert upstream.requests[-1] == body
                assert json.loads(reply.content)["usage"] == {"prompt_tokens": 100, "completion_tokens": 10}
            else:
                upstream.script.clear()
    assert routes == {"small", "large"}
    assert [items for items, _ in escalation.asked if items] == []
