"""The glossary of the docs is that of the reports."""

from __future__ import annotations

from pathlib import Path

from jobs.commands.glossary import glossary_page

PAGE = Path(__file__).parents[3] / "docs" / "glossary.md"


def test_the_page_is_what_the_reports_say() -> None:
    """Mend it with `python -m jobs.commands.glossary > docs/glossary.md`."""
    assert PAGE.read_text(encoding="utf-8") == glossary_page()
    assert "| Judge | Says how sure" in glossary_page()
    assert "| `call_rate` | Call rate | Share of inputs" in glossary_page()
