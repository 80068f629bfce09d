"""`kcm label` with a real encoder and a server, then `kcm predict` with the bundle that it wrote."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from kcm.bundle.bundle import Bundle
from kcm.bundle.models import NOT_CERTIFIED
from tests.fake_upstream import FakeUpstream, label

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

COLOURS = ("red", "blue", "green", "black")


def write_table(path: Path, first: int, num_rows: int) -> None:
    """Texts on films and on food."""
    topics = ("a film with a bad actor", "a soup with too much salt")
    texts = [f"{topics[n % 2]} and a {COLOURS[n % 4]} hat {n}" for n in range(first, first + num_rows)]
    pd.DataFrame({"text": texts}).to_csv(path, index=False)


def asked_text(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"].split("\n")[1])


def test_bundle_of_a_table_labels_the_next(
    upstream: FakeUpstream, assets_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command writes table, certificate, page and bundle; `kcm predict` labels the next file with the bundle."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("KCM_ASSETS", str(assets_dir))
    monkeypatch.chdir(tmp_path)
    upstream.otherwise = lambda body: label("film" if "film" in asked_text(body) else "food")
    write_table(tmp_path / "tickets.csv", 0, 420)
    write_table(tmp_path / "next.csv", 1000, 40)
    words = ["label", "tickets.csv", "--llm", "large", "--base-url", upstream.base_url, "--labels", "film,food"]

    done = CliRunner().invoke(app, [*words, "--text", "text", "--yes", "--assets-path", str(assets_dir)])

    assert done.exit_code == 0, done.output
    ends = ("csv", "certificate.json", "html", "bundle")
    assert all((tmp_path / f"tickets.labelled.{end}").exists() for end in ends)
    assert json.loads((tmp_path / "tickets.labelled.certificate.json").read_text())["certified"]
    last = done.output.rstrip().splitlines()[-1]
    assert last.startswith(
        "next: kcm predict tickets.labelled.bundle FILE -o OUT | kcm serve --bundle tickets.labelled"
    )
    assert Bundle.read(tmp_path / "tickets.labelled.bundle").certificates == {}

    num_asked = len(upstream.requests)
    answered = CliRunner().invoke(app, ["predict", "tickets.labelled.bundle", "next.csv", "-o", "out.csv"])

    assert answered.exit_code == 0, answered.output
    assert NOT_CERTIFIED in " ".join(answered.output.split())
    out = pd.read_csv(tmp_path / "out.csv")
    truth = out["text"].str.contains("film").map({True: "film", False: "food"})
    assert (out["label"] == truth).all()
    assert set(out["route"]) <= {"small", "large"}
    assert (out["route"] == "small").mean() > 0.2
    assert len(upstream.requests) - num_asked == (out["route"] == "large").sum()
