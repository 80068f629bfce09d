"""Parts of the docs that are made from the code: the site makes commands.md and measures.md.

`python -m jobs.pages` writes the table of words into docs/architecture.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from jobs.cli import COMMANDS, load
from kcm.report.formats import measures, words

COMMANDS_HEAD = """# Commands

Every command of `kcm`; `kcm COMMAND -h` prints the same. `kcm --install-completion` adds completion to your shell.

Most commands take a run's YAML file, `CONFIG`; `--set KEY.PATH=VALUE` overrides a value and can be repeated. All
commands take `--json FILE` to write their result or error, and `--debug` to show tracebacks. A user error is one line:
what, where, and the fix.

Exit codes: 0 done, 1 a bug, 2 a user error, 3 done with answers outside the promise, 4 `label` could buy no answer, 130
interrupted, 143 terminated by SIGTERM. `run`, `update` and `predict` resume when they are started again, and `route`
reuses texts that it encoded.
"""
MEASURES_HEAD = """# Measures

What do the keys of a result mean? The report shows the same labels and meanings.
"""
ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"
_WORDS = re.compile(r"(?<=<!-- words -->\n).*?(?=<!-- end -->)", re.DOTALL)


def commands_reference() -> str:
    """Markdown for all commands, from typer."""
    sections = []
    for name in COMMANDS:
        command = load(name)
        context = typer.Context(command, info_name=name)
        page = get_docs_for_click(obj=command, ctx=context, indent=1, name=name, call_prefix="kcm")
        sections.append(page.rstrip() + "\n")
    return "\n".join([COMMANDS_HEAD, *sections])


def with_words(page: str) -> str:
    """A page whose block `words` has the words of the reports."""
    rows = [f"| {word} | {meaning} |\n" for word, meaning in words().items()]
    table = "".join(["\n| word | meaning |\n", "|---|---|\n", *rows, "\n"])
    return _WORDS.sub(lambda _: table, page)


def measures_page() -> str:
    """Markdown for all measures of a result."""
    lines = [MEASURES_HEAD, "| key | in the report | meaning | missing if |", "|---|---|---|---|"]
    for key, metric in measures().items():
        lines.append(f"| `{key}` | {metric.label} | {metric.meaning} | {metric.reason} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    ARCHITECTURE.write_text(with_words(ARCHITECTURE.read_text(encoding="utf-8")), encoding="utf-8")
