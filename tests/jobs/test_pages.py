"""The pages on commands and words are what the commands and reports say."""

from __future__ import annotations

from pathlib import Path

from jobs.cli import app
from jobs.pages import commands_reference, glossary_page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_commands_say() -> None:
    """Mend it with `python -m jobs.pages commands > docs/commands.md`."""
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == commands_reference(app)


def test_every_command_has_its_words() -> None:
    page = commands_reference(app)
    for heading in (
        "## `kcm run CONFIG`",
        "## `kcm predict [BUNDLE] FILE --output FILE`",
        "## `kcm route certify TABLE",
    ):
        assert heading in page
    assert "| `--promote, --no-promote` | Whether the version becomes the champion" in page
    assert "--debug` |" not in page


def test_the_glossary_is_what_the_reports_say() -> None:
    """Mend it with `python -m jobs.pages glossary > docs/glossary.md`."""
    assert (DOCS / "glossary.md").read_text(encoding="utf-8") == glossary_page()
    assert "| Judge | Says how sure" in glossary_page()
    assert "| `call_rate` | Call rate | Share of inputs" in glossary_page()
