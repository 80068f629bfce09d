"""`kcm label`, then `kcm predict` with its bundle, and `kcm run`, traffic and `kcm update` with its configuration."""

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from benchmarks.simulation.local_service import local_service
from jobs.cli import app
from jobs.options import load
from kcm.bundle.answers import Input
from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import NOT_CERTIFIED
from kcm.inputs.content import Content
from kcm.large.base import PROBE
from pipelines.config import RunConfig
from pipelines.loop.state import LoopState
from pipelines.stages.parent import Parent
from tests.fake_upstream import FakeUpstream, label

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

COLOURS = ("red", "blue", "green", "black")
TOPICS = ("a film with a bad actor", "a soup with too much salt")
LIMITS = [  # of a test that few rows and a busy machine must not decide
    "certificate.epsilon=.2",
    "serve.audit.share=.5",
]
CONFIG = "tickets.labelled.yaml"
GATES = ["rows", "probe", "panel", "champion", "certificate", "old_tasks", "call_rate"]


def texts(first: int, num_rows: int) -> list[str]:
    """Texts on films and on food, each different."""
    return [f"{TOPICS[n % 2]} and a {COLOURS[n % 4]} hat {n}" for n in range(first, first + num_rows)]


def invoked(*words: str) -> str:
    """What a command prints."""
    done = CliRunner().invoke(app, [*words])
    assert done.exit_code == 0, done.output
    return done.output


async def send(config: RunConfig, inputs: list[str]) -> None:
    """Requests of 32 texts to the champion."""
    async with local_service(config) as service:
        for start in range(0, len(inputs), 32):
            part = [Input(Content(text)) for text in inputs[start : start + 32]]
            await service.predict(part, str(uuid.uuid4()))


def test_labelled_table_goes_on_learning(
    upstream: FakeUpstream, assets_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle labels the next file; the run pays for no row; its traffic certifies a challenger for promotion."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KCM_ASSETS", str(assets_dir))
    monkeypatch.chdir(tmp_path)

    def answer(body: dict[str, Any]) -> Any:
        return label("film" if "film" in body["messages"][-1]["content"].split("\n")[1] else "food")

    upstream.otherwise = answer
    pd.DataFrame({"text": texts(0, 420)}).to_csv(tmp_path / "tickets.csv", index=False)
    words = ["label", "tickets.csv", "--llm", "large", "--base-url", upstream.base_url, "--labels", "film,food"]
    said = invoked(*words, "--text", "text", "--yes", "--assets-path", str(assets_dir))
    assert f"keep it learning: kcm run {CONFIG}" in said
    assert "next: kcm predict tickets.labelled.bundle FILE -o OUT | kcm serve --bundle tickets.labelled" in said
    assert json.loads(Path("tickets.labelled.certificate.json").read_text())["certified"]
    assert Path("tickets.labelled.html").exists()

    pd.DataFrame({"text": texts(2000, 40)}).to_csv("next.csv", index=False)
    num_asked = len(upstream.requests)
    said = invoked("predict", "tickets.labelled.bundle", "next.csv", "-o", "out.csv")
    assert NOT_CERTIFIED in " ".join(said.split())
    out = pd.read_csv("out.csv")
    assert (out["label"] == out["text"].str.contains("film").map({True: "film", False: "food"})).all()
    assert (out["route"] == "small").mean() > 0.2
    assert len(upstream.requests) - num_asked == (out["route"] == "large").sum()

    num_asked, config = len(upstream.requests), load(Path(CONFIG), LIMITS)

    sets = [word for limit in LIMITS for word in ("--set", limit)]
    invoked("run", CONFIG, *sets)

    assert upstream.texts()[num_asked:] == [PROBE.content.text]  # whether the server answers
    champions = LoopState.of(config).champions
    first = champions.present().champion
    bundle = Parent.of(LoopState.of(config).store, first).bundle
    labelled = Bundle.read(tmp_path / "tickets.labelled.bundle")
    assert bundle.certificates == {}
    assert bundle.policy.decision == labelled.policy.decision
    assert (bundle.label_names, bundle.large_identity) == (labelled.label_names, labelled.large_identity)

    asyncio.run(send(config, texts(1000, 640)))
    assert len(upstream.requests) - num_asked < 640
    invoked("update", CONFIG, *sets)

    turn = LoopState.of(config).attempts.turns()[-1]
    assert turn["gates"]["champion"]["reason"] == "the champion has no certificate"
    assert turn["promoted"], turn["reason"]
    assert list(turn["gates"]) == GATES
    assert turn["gates"]["probe"]["verdict"] == turn["gates"]["panel"]["verdict"] == "pass"
    second = Parent.of(LoopState.of(config).store, champions.present().champion).bundle
    assert second.certificates[None].valid
    assert second.certificates[None].method == "traffic"
    assert second.policy.lowest_cut < float("inf")
    assert len(second.task_names) == len(bundle.task_names) + 1
    assert second.lineage.parent == first.digest
    registered = MlflowClient(champions.uri).get_model_version(config.name, "2")
    assert registered.tags["kcm.parent"] == first.digest
