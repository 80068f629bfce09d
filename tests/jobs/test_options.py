"""Options made of a model: one per field, with its description; only those given reach the command."""

from typing import Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from jobs.options import options_of
from kcm.config import Config


class Names(Config):
    """Fields of the kinds that are used."""

    first_name: str | None = Field(None, description="What the first is called.")
    cut: float | None = Field(None, description="Where to cut.")
    kind: Literal["cat", "dog"] = Field("dog", description="One of two.")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["x"], {"kind": "dog"}),
        (["x", "--first-name", "a", "--cut", "0.5"], {"first_name": "a", "cut": 0.5, "kind": "dog"}),
        (["x", "--kind", "cat"], {"kind": "cat"}),
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
