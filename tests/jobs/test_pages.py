"""The pages on commands, words and Python's names are what commands, reports and docstrings say."""

from __future__ import annotations

from pathlib import Path

import kcm
from jobs.pages import commands_reference, glossary_page, python_page
from jobs.python_page import markdown

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_commands_say() -> None:
    """Mend it with `python -m jobs.pages commands > docs/commands.md`."""
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == commands_reference()


def test_every_command_has_its_words() -> None:
    page = commands_reference()
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


def test_the_page_on_python_is_what_signatures_and_docstrings_say() -> None:
    """Mend it with `python -m jobs.pages python > docs/python_reference.md`."""
    page = python_page()
    assert (DOCS / "python_reference.md").read_text(encoding="utf-8") == page
    for name in (*kcm.__all__, "run", "update", "serve"):
        assert f"### `kcm.{name}`\n" in page
    assert "#### `KANClassifier.partial_fit`\n\n```python\npartial_fit(X: ArrayLike, y: ArrayLike, classes:" in page
    assert '    route: Literal["small", "large", "small_degraded"]\n' in page


def test_a_docstring_becomes_paragraphs_lists_and_code() -> None:
    docstring = """Purpose,
in two lines.

    y = 2 x

Parameters
----------
a, b : two numbers
    and more of them
"""
    assert list(markdown(docstring)) == [
        "Purpose, in two lines.\n",
        "```text\ny = 2 x\n```\n",
        "**Parameters**\n",
        "- `a`, `b`: two numbers – and more of them\n",
    ]
