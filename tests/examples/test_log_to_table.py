"""`examples/log_to_table.py` makes a table of a log of LLM calls, which `kcm label` reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from jobs.cli import app

EXAMPLE = Path(__file__).parents[2] / "examples" / "log_to_table.py"
SYSTEM = {"role": "system", "content": "Sort support tickets into queues."}
OTHER = {"role": "system", "content": "Translate into French."}
TEXTS = [f"my {'invoice' if number % 2 else 'password'} number {number} is lost" for number in range(60)]


def request(text: str) -> list[dict[str, Any]]:
    return [SYSTEM, {"role": "user", "content": f"Ticket: {text}\nQueue:"}]


def completion(answer: str | None) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": answer}}]}


def openai(text: str, answer: str) -> dict[str, Any]:
    return {"request": {"messages": request(text)}, "response": {"status_code": 200, "body": completion(answer)}}


def litellm(text: str, answer: str) -> dict[str, Any]:
    body = json.dumps({"messages": request(text)})
    return {"messages": "{}", "proxy_server_request": body, "response": json.dumps(completion(answer))}


def litellm_callback(text: str, answer: str) -> dict[str, Any]:
    return {"messages": request(text), "response": completion(answer)}


def conversation(text: str, answer: str) -> dict[str, Any]:
    return {"messages": [*request(text), {"role": "assistant", "content": f"{answer}\n"}]}


@pytest.mark.parametrize("row_of", [openai, litellm, litellm_callback, conversation])
def test_log_becomes_a_labelled_table(row_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: of a log with failed and foreign calls and a broken line, `kcm label` reads the calls of one prompt."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    answers = ["billing" if number % 2 else "login" for number in range(60)]
    rows: list[Any] = [row_of(text, answer) for text, answer in zip(TEXTS, answers, strict=True)]
    rows.insert(7, {"messages": request("no answer"), "response": completion(None)})
    rows.insert(9, {"request": {"messages": request("refused")}, "response": {"status_code": 429, "body": {}}})
    rows.append({"messages": [OTHER, {"role": "user", "content": "water"}], "response": completion("eau")})
    log, table = tmp_path / "log.jsonl", tmp_path / "table.csv"
    log.write_text("\n".join([*map(json.dumps, rows), '{"messages": [']), encoding="utf-8")

    done = subprocess.run(
        [sys.executable, EXAMPLE, log, "--system", "support"], capture_output=True, text=True, check=True
    )
    assert done.stderr == "60 of 64 calls; 3 without text or reply\n"
    table.write_text(done.stdout, encoding="utf-8")
    frame = pd.read_csv(table)
    assert frame["text"].tolist() == [text.removeprefix("my ").removesuffix(" is lost") for text in TEXTS]
    assert frame["answer"].tolist() == answers

    labelled = CliRunner().invoke(app, ["label", str(table), "--answers", "answer", "--encoder", "words", "--yes"])
    assert labelled.exit_code == 0, labelled.stderr
    assert "60 rows, 60 different texts in column 'text', 2 labels" in labelled.output
