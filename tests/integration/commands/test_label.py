"""`kcm label` as a process: a real server, and an interruption."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.fake_upstream import FakeUpstream, Turn, label

pytestmark = pytest.mark.integration
# The signal reaches a command also in a session that a shell has started in the background, which ignores it.
HEEDING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from jobs.cli import main; main()"


def test_ctrl_c_ends_with_a_line_and_keeps_what_was_paid(upstream: FakeUpstream, tmp_path: Path) -> None:
    table, interrupted = tmp_path / "films.csv", threading.Event()
    pd.DataFrame({"text": [f"good film {n}" for n in range(500)]}).to_csv(table, index=False)

    def answer(body: dict[str, Any]) -> Turn:
        if len(upstream.requests) >= 20:
            interrupted.wait(100)
        return label("positive")

    upstream.otherwise = answer
    words = ["label", str(table), "--llm", "some-model", "--base-url", upstream.base_url, "--encoder", "words"]
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING, *words, "--labels", "positive,negative"],
        env=os.environ | {"XDG_DATA_HOME": str(tmp_path / "home")},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(upstream.requests) < 20:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    interrupted.set()
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "start again" in errors
