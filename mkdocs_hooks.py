"""Hooks of mkdocs: the home page, the pages on commands and keys, and links from docs/ to files outside it.

The home page is README.md. The pages on commands, keys and measures are made from the code and not committed. A code
host shows a link to ../jobs/configs/own_data.yaml as it stands. On the site it becomes a link to `repo_url` of
mkdocs.yml, or the file's path where there is no `repo_url`. A file that does not exist ends the build.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import typer
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from typer.cli import get_docs_for_click

BRANCH = "main"
COMMANDS_HEAD = """# Commands

Every command of `kcm`; `kcm COMMAND -h` prints the same. `kcm --install-completion` adds completion to your shell.

Most commands take a run's YAML file, `CONFIG`; `--set KEY.PATH=VALUE` overrides a value and can be repeated. All
commands take `--json FILE` to write their result or error, and `--debug` to show tracebacks. A user error is one line:
what, where, and the fix.

Exit codes: 0 done, 1 a bug, 2 a user error, 3 done with answers outside the promise, 4 `label` could buy no answer, 130
interrupted, 143 terminated by SIGTERM. `run`, `update` and `predict` resume when they are started again.
"""
MEASURES_HEAD = """# Measures

What do the keys of a result mean? The report shows the same labels and meanings.

| key | in the report | meaning | missing if |
|---|---|---|---|
"""
_LINK = re.compile(r"\[(?P<text>[^]\[]+)\]\((?P<target>\.\./[^)#\s]+)(?:#[^)\s]*)?\)")


def on_files(files: Any, *, config: Any) -> Any:
    """The pages with `index.md`, `commands.md`, `configuration.md` and `measures.md`, as this checkout has them."""
    sys.path.insert(0, str(Path(config.docs_dir).parent))
    from jobs.commands.reference import configuration_reference
    from pipelines.config import RunConfig

    readme = Path(config.docs_dir).with_name("README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=re.sub(r"\(docs/", "(", readme)))
    files.append(File.generated(config, "commands.md", content=_commands()))
    files.append(File.generated(config, "configuration.md", content=configuration_reference(RunConfig)))
    files.append(File.generated(config, "measures.md", content=_measures()))
    return files


def _commands() -> str:
    """Markdown for all commands, from typer."""
    from jobs.cli import COMMANDS, load

    sections = []
    for name in COMMANDS:
        command = load(name)
        context = typer.Context(command, info_name=name)
        page = get_docs_for_click(obj=command, ctx=context, indent=1, name=name, call_prefix="kcm")
        sections.append(page.rstrip() + "\n")
    return "\n".join([COMMANDS_HEAD, *sections])


def _measures() -> str:
    """Markdown for all measures of a result."""
    from kcm.report.formats import measures

    rows = (f"| `{key}` | {m.label} | {m.meaning} | {m.reason} |\n" for key, m in measures().items())
    return MEASURES_HEAD + "".join(rows)


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The page with its links out of `docs_dir` rewritten."""
    docs = Path(config.docs_dir)

    def rewritten(link: re.Match[str]) -> str:
        file = Path(os.path.normpath((docs / page.file.src_path).parent / link["target"]))
        if file.is_relative_to(docs):
            return link[0]
        if not file.exists():
            raise PluginError(f"{page.file.src_path} links to {link['target']}, which does not exist")
        path = file.relative_to(docs.parent).as_posix()
        if not config.repo_url:
            return f"`{path}`"
        return f"[{link['text']}]({config.repo_url.rstrip('/')}/blob/{BRANCH}/{path})"

    return _LINK.sub(rewritten, markdown)
