"""The page on commands is what the commands say of themselves."""

from __future__ import annotations

from pathlib import Path

from jobs.cli import app
from jobs.pages import commands_reference

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def test_the_page_is_what_the_commands_say() -> None:
    """Mend it with `python -m jobs.pages > docs/commands.md`."""
    assert PAGE.read_text(encoding="utf-8") == commands_reference(app)


def test_every_command_has_its_words() -> None:
    page = commands_reference(app)
    for heading in ("## `kcm run CONFIG`", "## `kcm predict BUNDLE FILE --output FILE`", "## `kcm route certify TABLE"):
        assert heading in page
    assert "| `--promote, --no-promote` | Whether the version becomes the champion" in page
    assert "--debug` |" not in page
