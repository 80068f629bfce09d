"""Generated pages of the docs: the site generates commands.md, `python -m jobs.pages` prints the glossary."""

from __future__ import annotations

import typer
from typer.cli import get_docs_for_click

from jobs.cli import COMMANDS, load
from kcm.report.glossary import measures, words

COMMANDS_HEAD = """# Commands

Every command of `kcm`; `kcm COMMAND -h` prints the same. `kcm --install-completion` adds completion to your shell.

Most commands take a run's YAML file, `CONFIG`; `--set KEY.PATH=VALUE` overrides a value and can be repeated. All
commands take `--json FILE` to write their result or error, and `--debug` to show tracebacks. A user error is one line:
what, where, and the fix.

Exit codes: 0 done, 1 a bug, 2 a user error, 3 done with answers outside the promise, 130 interrupted, 143 terminated by
SIGTERM. `run`, `update` and `predict` resume when they are started again, and `route` reuses texts that it encoded.
"""
GLOSSARY_HEAD = """# Glossary

One word for each thing, in code, configuration, metrics and docs. The report shows these meanings where a word stands.
This page is printed by `python -m jobs.pages`.
"""


def commands_reference() -> str:
    """Markdown for all commands, from typer."""
    sections = []
    for name in COMMANDS:
        command = load(name)
        context = typer.Context(command, info_name=name)
        page = get_docs_for_click(obj=command, ctx=context, indent=1, name=name, call_prefix="kcm")
        sections.append(page.rstrip() + "\n")
    return "\n".join([COMMANDS_HEAD, *sections])


def glossary_page() -> str:
    """Markdown of all words of the reports, then of all measures."""
    lines = [GLOSSARY_HEAD, "| word | meaning |", "|---|---|"]
    lines += [f"| {word} | {meaning} |" for word, meaning in words().items()]
    lines += ["", "## Measures", "", "| key | in the report | meaning | missing where |", "|---|---|---|---|"]
    for key, metric in measures().items():
        lines.append(f"| `{key}` | {metric.label} | {metric.meaning} | {metric.reason} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(glossary_page(), end="")
