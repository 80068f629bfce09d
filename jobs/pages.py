"""Pages of the docs that are made from the code: `python -m jobs.pages commands`, or `glossary`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

from jobs.cli import COMMANDS, load
from kcm.report.glossary import measures, words

COMMANDS_HEAD = """# Commands

Every command of `kcm`; `kcm COMMAND -h` says the same, `kcm --install-completion` completes them in a shell. This page
is printed by `python -m jobs.pages commands`.

Most commands take a run's YAML file, `CONFIG`, whose values `--set KEY.PATH=VALUE` overrides; it can be repeated. All
take `--json FILE` for their result, or their error, and `--debug` for tracebacks. A user error is one line: what,
where, and the fix. Exit codes: 0 done, 1 a bug, 2 a user error, 130 interrupted, 143 terminated by SIGTERM. `run`,
`update` and `predict` go on where they were when they are started again, and `route` keeps the texts that it encoded.
"""
GLOSSARY_HEAD = """# Glossary

One word for each thing, in code, configuration, metrics and docs. The report shows these meanings where a word stands.
This page is printed by `python -m jobs.pages glossary`.
"""
COMMON = {"--set", "--json", "--debug", "--help"}  # said once


def commands_reference() -> str:
    """Markdown for all commands, those of groups after their group."""
    sections = [section for name in COMMANDS for section in _sections(f"kcm {name}", load(name))]
    return "\n".join([COMMANDS_HEAD, *sections])


def glossary_page() -> str:
    """Markdown of all words of the reports, then of all measures."""
    lines = [GLOSSARY_HEAD, "| word | meaning |", "|---|---|"]
    lines += [f"| {word} | {meaning} |" for word, meaning in words().items()]
    lines += ["", "## Measures", "", "| key | in the report | meaning | missing where |", "|---|---|---|---|"]
    for key, metric in measures().items():
        lines.append(f"| `{key}` | {metric.label} | {metric.meaning} | {metric.reason} |")
    return "\n".join(lines) + "\n"


def _sections(path: str, command: Any) -> Iterator[str]:
    below = getattr(command, "commands", None)
    if below is None:
        yield from _section(path, command)
        return
    for name, each in below.items():
        yield from _sections(f"{path} {name}", each)


def _section(path: str, command: Any) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not COMMON & set(each.opts)]
    needed = [f"{each.opts[0]} {_metavar(each)}".strip() for each in options if each.required]
    yield f"## `{' '.join([path, *map(_metavar, arguments), *needed])}`\n"
    yield f"{' '.join((command.help or '').split())}\n"
    rows = [(_metavar(each), each.help) for each in arguments]
    rows += [(" ".join([", ".join([*each.opts, *each.secondary_opts]), _metavar(each)]), each.help) for each in options]
    if rows:
        yield "| | |\n|---|---|"
        for name, meaning in rows:
            yield "| " + " | ".join(_cell(each) for each in (f"`{name.strip()}`", meaning or "")) + " |"
        yield ""


def _metavar(parameter: Any) -> str:
    """What stands for the value of a parameter; empty for a switch."""
    if getattr(parameter, "is_flag", False):
        return ""
    return str(parameter.metavar or parameter.name.upper())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "commands": commands_reference,
    "glossary": glossary_page,
}

if __name__ == "__main__":
    print(PAGES[sys.argv[1]](), end="")
