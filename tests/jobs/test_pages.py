"""The pages on commands and words are what commands and reports say, and Python's names are all on theirs."""

from __future__ import annotations

from pathlib import Path

import kcm
from jobs.pages import commands_reference, glossary_page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_commands_say() -> None:
    """Mend it with `python -m jobs.pages commands > docs/commands.md`."""
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == commands_reference()


def test_every_command_has_its_words() -> None:
    page = commands_reference()
    for name in ("run", "predict", "route certify"):
        assert f"# `kcm {name}`\n" in page
    assert "* `--promote / --no-promote`: Whether the version becomes the champion" in page


def test_the_glossary_is_what_the_reports_say() -> None:
    """Mend it with `python -m jobs.pages glossary > docs/glossary.md`."""
    assert (DOCS / "glossary.md").read_text(encoding="utf-8") == glossary_page()
    assert "| Judge | Says how sure" in glossary_page()
    assert "| `call_rate` | Call rate | Share of inputs" in glossary_page()


def test_every_name_of_import_kcm_has_its_place_on_the_page_on_python() -> None:
    page = (DOCS / "python_reference.md").read_text(encoding="utf-8")
    for name in kcm.__all__:
        assert f"::: kcm.{name}\n" in page or name == "KcmError"
    for verb in ("run", "update", "serve"):
        assert f"::: jobs.verbs.{verb}\n" in page
