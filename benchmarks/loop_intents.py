"""CLINC150 with intents that appear over time: a champion of forty learns ten more, and ten more, from its traffic.

A fifth of the items are labelled by whoever sent them, new intents among them; a person labels the challengers'
disagreements until they suffice, and approves what no promotion gate refused. The large model is played: a server that
answers by the true intent, wrongly for one text in twenty, and with none of these where it does not know the intent.
What it and the cascades save is measured on rows that nobody learns. All settings are fixed here before they are read.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from loop_scene import Scene
from rich.console import Console

from kcm.bundle.answers import Answer, Input
from kcm.inputs.content import Content
from kcm.large.prompting.prompts import NO_PROMPT, question
from kcm.tasks.hashing import draw, shuffled
from kcm.tasks.rows import SourceRow

BASE, NEW, TURNS = 40, 10, 2  # intents
TAUGHT, AGAIN, FRESH, MEASURED = 60, 25, 90, 10  # rows of an intent: at first, in a window, when it is new, measured
LABELLED, WRONG = 5, 0.05
NONE = "oos"
VALUES = {
    "tasks.scenario": "class_incremental",
    "tasks.num_tasks": 4,
    "tasks.max_rows_per_task": "null",
    "tasks.out_of_scope": "keep",
    "network": "{hidden: []}",
    "train.num_epochs": 10,
    "learner": "{name: replay, memory: 2000, batch_size: 64}",
    "tune.num_trials": 2,
    "tune.max_loss": 0.03,
    "certificate.epsilon": 0.03,
    "serve.feedback": "{store_payloads: all, new_labels: keep}",
    "update.gates": "{max_old_task_loss: 0.05, max_cost: 9, max_latency: 9}",
}

console = Console(width=140)


def intent_rows(folder: Path, assets: Path, clinc: Path, seed: int) -> list[tuple[str, str, str, str]]:
    """The rows of the table."""
    data = json.loads(clinc.read_text(encoding="utf-8"))
    texts: dict[str, list[str]] = {}
    for split in ("train", "val", "test"):
        for text, intent in data[split]:
            texts.setdefault(intent, []).append(text)
    names = shuffled(texts, seed, "intents")[: BASE + TURNS * NEW]
    truth = {text: name for name in names for text in texts[name]}
    first, *later = [names[:BASE], *(names[BASE + NEW * turn :][:NEW] for turn in range(TURNS))]
    with _hosted(truth) as url:
        rows = [(text, name) for name in first for text in texts[name][:TAUGHT]]
        rows += [(text, NONE) for text, _ in data["oos_train"]]
        large = f"{{adapter: openai, base_url: '{url}', api_key_env: null, model: played, num_concurrent: 4}}"
        source = _source(folder / "first.csv", rows)
        scene = Scene(folder, assets, VALUES | {"seed": seed, "large": large, "tasks.source": source})
        scene.result_of("run")
        found = []
        for turn, fresh in enumerate(later):
            known = [name for each in (first, *later[:turn]) for name in each]
            more = json.dumps([name for each in later[: turn + 1] for name in each])
            scene = replace(scene, values=scene.values | {"update.more_labels": more})
            window = [(text, name) for name in fresh for text in texts[name][:FRESH]]
            start = TAUGHT + AGAIN * turn
            window += [(text, name) for name in first for text in texts[name][start : start + AGAIN]]
            measured = {kind: _rows(texts, kind_names) for kind, kind_names in (("old", known), ("new", fresh))}
            before = {kind: _measure(scene, None, rows) for kind, rows in measured.items()}
            ended = _turn(scene, window, seed, truth)
            after = {kind: _measure(scene, ended.version, rows) for kind, rows in measured.items()}
            found += _told(turn + 1, ended, before, after)
            for row in found[-3:]:
                console.print(f"{row[0]}: {row[3]}")
        return found


@dataclass(frozen=True)
class Ended:
    """What became of a turn."""

    version: str
    promoted: bool
    reason: str
    labels: int
    certificate: Mapping[str, Any]


def _turn(scene: Scene, window: Sequence[tuple[str, str]], seed: int, truth: Mapping[str, str]) -> Ended:
    """Traffic, its labels, a turn, labels on disagreements, a second one, and approval where it waits for that."""
    order = shuffled((text for text, _ in window), seed, "traffic")
    requests = scene.play([SourceRow(id=text, text=text, label=truth[text]) for text in order])
    scene.send_labels(requests, LABELLED)
    turn, _ = scene.result_of("update")
    labels = scene.label(truth)
    if labels:
        again, _ = scene.result_of("update")
        turn = again if again["changed"] else turn
    if turn["awaits_approval"]:
        console.print(f"{turn['version']} waits: {turn['reason']}")
        turn |= scene.result_of("promote", turn["version"], "--approve")[0]
    return Ended(turn["version"], turn["promoted"], turn["reason"], labels, turn["certificate"])


def _measure(scene: Scene, version: str | None, rows: Sequence[tuple[str, str]]) -> str:
    """Calls saved and accuracy of a version, or of the champion, on rows that nobody learned."""
    answers = scene.cascade(version).answer([Input(Content(text)) for text, _ in rows])
    good = [answer for answer in answers if isinstance(answer, Answer)]
    assert len(good) == len(rows)
    kept = sum(answer.route == "small" for answer in good) / len(good)
    right = sum(answer.label == name for answer, (_, name) in zip(good, rows, strict=True)) / len(good)
    return f"{100 * kept:.1f}% saved, accuracy {100 * right:.1f}%"


def _told(
    turn: int, ended: Ended, before: Mapping[str, str], after: Mapping[str, str]
) -> list[tuple[str, str, str, str]]:
    valid = f"at most {100 * ended.certificate['bound']:.1f} points lost" if ended.certificate["valid"] else "none"
    state = "promoted" if ended.promoted else f"not promoted: {ended.reason}"
    return [
        (f"turn {turn}: {NEW} new intents, before -> after", "rises", "", f"{before['new']} -> {after['new']}"),
        (f"turn {turn}: earlier intents, before -> after", "", "", f"{before['old']} -> {after['old']}"),
        (f"turn {turn}: certificate, labels on disagreements", "valid", "", f"{valid}, {ended.labels}; {state}"),
    ]


def _rows(texts: Mapping[str, Sequence[str]], names: Sequence[str]) -> list[tuple[str, str]]:
    return [(text, name) for name in names for text in texts[name][-MEASURED:]]


def _source(file: Path, rows: Sequence[tuple[str, str]]) -> str:
    """Rows as a table, and the configuration of a source that reads it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(file, index=False)
    return f"{{kind: files, path: {file}, out_of_scope_label: {NONE}}}"


@contextmanager
def _hosted(truth: Mapping[str, str]) -> Iterator[str]:
    """The address of the large model that is played."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Played)
    _Played.answers = {question(text, ("a",), NO_PROMPT).data: (text, name) for text, name in truth.items()}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()


class _Played(BaseHTTPRequestHandler):
    """A server of chat completions that knows the intents of the texts, and errs where a hash says so."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[dict[str, tuple[str, str]]] = {}

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        allowed = body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"]
        text, name = self.answers.get(body["messages"][-1]["content"], ("", NONE))
        if name not in allowed:
            name = NONE
        elif draw(0, "wrong", text) < WRONG:
            name = allowed[int(draw(0, "answer", text) * len(allowed))]
        choice = {"message": {"role": "assistant", "content": json.dumps({"label": name})}}
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        content = json.dumps({"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""
