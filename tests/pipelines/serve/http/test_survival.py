"""The whole application killed while it answers, over real HTTP and a real SQLite file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.tables import FEEDBACK

# The door's interface and its store; a model has no part in this.
SERVER = """
import sys

import uvicorn

from pipelines.serve.http.api import create_api
from pipelines.serve.config import FeedbackConfig, ServeConfig
from pipelines.serve.log.entries import LoggedDecision, Origin
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.schemas import FeedbackResponse

log = LogWriter(FeedbackConfig(timeout_s=10.0), sys.argv[1])


class Service:
    def __init__(self):
        self.labelling = self

    async def feedback(self, request_id, caller, labels):
        log.add_decisions([LoggedDecision(Origin(request_id, caller), label.item, "1", "small") for label in labels])
        await log.add_feedback(request_id, caller, labels)
        return FeedbackResponse(request_id=request_id, stored=len(labels))

    def failed(self):
        raise AssertionError("no request fails here")


uvicorn.run(create_api(Service(), ServeConfig()), fd=int(sys.argv[2]), log_level="error")
"""


@pytest.mark.slow
def test_every_acknowledged_feedback_is_there_after_the_application_was_killed(tmp_path: Path) -> None:
    """Promise: what was acknowledged is stored, whenever SIGKILL comes."""
    url = f"sqlite:///{tmp_path}/feedback.db"
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        handle = listening.fileno()
        server = subprocess.Popen([sys.executable, "-c", SERVER, url, str(handle)], pass_fds=[handle])
    acknowledged: list[str] = []

    def send_until_it_dies(client: int) -> None:
        for number in range(100_000):
            request_id = f"{client}-{number}"
            body = {"request_id": request_id, "labels": [{"label": "good", "text": "x" * 1000}]}
            try:
                response = httpx.post(f"{address}/v1/feedback", json=body, timeout=60)
            except httpx.HTTPError:
                return
            if response.status_code == 200:
                acknowledged.append(request_id)

    with ThreadPoolExecutor(3) as clients:
        sending = [clients.submit(send_until_it_dies, client) for client in range(3)]
        deadline = time.monotonic() + 300
        while len(acknowledged) < 30 and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        for each in sending:
            each.result()
    stored = {row["request_id"] for row in DecisionLog(url, 5.0).read(FEEDBACK)}
    assert len(acknowledged) >= 30
    assert set(acknowledged) <= stored
