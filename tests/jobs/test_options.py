"""Options made of a model: one per field, with its description; only those given reach the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from jobs.cli import app as cli
from jobs.options import options_of
from kcm.config import Config


class Names(Config):
    """Fields of the kinds that are used."""

    first_name: str | None = Field(None, description="What the first is called.")
    cut: float | None = Field(None, description="Where to cut.")
    others: tuple[str, ...] = Field((), description="All the others.")
    kind: Literal["cat", "dog"] = Field("dog", description="One of two.")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["x"], {"kind": "dog"}),
        (["x", "--first-name", "a", "--cut", "0.5"], {"first_name": "a", "cut": 0.5, "kind": "dog"}),
        (["x", "--others", "b", "--others", "c", "--kind", "cat"], {"others": ["b", "c"], "kind": "cat"}),
    ],
)
def test_the_command_gets_what_was_given_and_what_has_a_default(words: list[str], expected: dict[str, Any]) -> None:
    seen: dict[str, Any] = {}
    app = typer.Typer()

    @app.command()
    @options_of(Names, "names")
    def command(where: str, names: dict[str, Any], loud: bool = False) -> None:
        seen.update(where=where, names=names, loud=loud)

    assert CliRunner().invoke(app, [*words, "--loud"]).exit_code == 0
    assert seen == {"where": "x", "names": expected, "loud": True}
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert "Where to cut." in shown
    assert "[default: dog]" in shown


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["run", "absent.yaml"], "reading absent.yaml"),
        (["init", "absent.csv"], "looking at absent.csv"),
        (["predict", "absent", "rows.csv", "--output", "out.csv"], "loading absent, to answer rows.csv"),
        (["explain", "--bundle", "absent"], "loading absent and its encoder"),
        (["serve", "--bundle", "absent"], "looking for absent"),
        (["update", "absent.yaml"], "looking for what the champion of absent.yaml has not learned"),
        (["promote", "absent.yaml", "1"], "looking for version 1 of absent.yaml"),
        (["versions", "absent.yaml"], "reading the versions of absent.yaml"),
        (["route", "evaluate", "absent.csv"], "reading absent.csv"),
        (["route", "fit", "absent.csv", "--output", "router"], "reading absent.csv"),
        (["log", "stats", "absent.yaml"], "reading the log of absent.yaml"),
        (["verify", "absent"], "reading absent"),
    ],
)
def test_a_person_at_a_terminal_is_told_at_once_what_a_command_does(
    words: list[str], first: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jobs.options.is_watched", lambda: True)
    shown = CliRunner().invoke(cli, words)
    assert shown.exit_code == 2
    told, error = shown.stderr.splitlines()
    assert told.startswith(first)
    assert error.startswith("error: ")
