"""`kcm labels`: what a person reads, types and sends in, over a real log; only which challenger it is for is made."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.work import labels as label_items
from pipelines.loop.gates.items_to_label import DrawnItems
from pipelines.loop.window.naming import ClassNames
from pipelines.store.records import Control
from tests.pipelines.loop.windows import Asked, made_drawn, made_window


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    asked = made_drawn(tmp_path, made_window(9000, rate=0.05))

    @contextmanager
    def opened(_: Any) -> Iterator[DrawnItems]:
        yield asked.drawn

    monkeypatch.setattr(label_items, "drawn_for", opened)
    yield asked
    asked.drawn.log.close()


@pytest.fixture
def run(tmp_path: Path, asked: Asked) -> Any:
    def command(*words: str, typed: str = "") -> Result:
        config = ("jobs/configs/reviews.yaml", "--set", f"storage_path={tmp_path}")
        return CliRunner().invoke(app, ["labels", *config, *words], input=typed)

    return command


def test_open_items_are_listed_with_what_is_missing(run: Any, asked: Asked) -> None:
    shown = run("--limit", "3")
    assert shown.exit_code == 0, shown.output
    first = asked.drawn.items()[0]
    assert first.id in shown.output
    assert str(first.text) in shown.output
    assert "0 labelled, 0 skipped" in shown.output
    assert "not yet: reviews/2 may lose" in shown.output
    assert "yes, no, none of these" in shown.output


def test_a_file_goes_out_and_comes_back(run: Any, asked: Asked, tmp_path: Path) -> None:
    file, number = tmp_path / "items.csv", len(asked.drawn.items())
    assert f"{number} items" in run("--out", str(file)).output
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([head, *(row.removesuffix(",,") + ",yes," for row in rows)]) + "\n")
    shown = run("--in", str(file), "--json", str(tmp_path / "out.json"))
    assert f"{number} labelled, 0 skipped, 0 open" in shown.output
    assert "start `kcm update`" in shown.output
    assert json.loads((tmp_path / "out.json").read_text())["stored"] == number


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClassNames:
    """The labels that people name."""
    named = ClassNames(Control(tmp_path), "bank")
    monkeypatch.setattr(ClassNames, "of", lambda _: named)
    monkeypatch.setattr(label_items, "champion_labels", lambda _: ("balance",))
    return named


def test_label_is_named_and_withdrawn(run: Any, named: ClassNames, tmp_path: Path) -> None:
    """Promise: labels are named and withdrawn, and the result lists them."""
    assert run("--name", "refund", "--name", "rebate").exit_code == 0
    assert named.labels() == ("refund", "rebate")
    shown = run("--withdraw", "rebate", "--json", str(tmp_path / "out.json"))
    assert shown.exit_code == 0, shown.output
    assert json.loads((tmp_path / "out.json").read_text()) == {"named": ["refund"]}
