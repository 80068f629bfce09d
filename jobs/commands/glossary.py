"""The page docs/glossary.md, made from the words of the reports: `python -m jobs.commands.glossary`."""

from __future__ import annotations

from kcm.report.glossary import measures, words

HEAD = """# Glossary

One word for each thing, in code, configuration, metrics and docs. The report shows these meanings where a word stands.
This page is printed by `python -m jobs.commands.glossary`.
"""


def glossary_page() -> str:
    """Markdown of all words, then of all measures."""
    lines = [HEAD, "| word | meaning |", "|---|---|"]
    lines += [f"| {word} | {meaning} |" for word, meaning in words().items()]
    lines += ["", "## Measures", "", "| key | in the report | meaning | missing where |", "|---|---|---|---|"]
    for key, metric in measures().items():
        lines.append(f"| `{key}` | {metric.label} | {metric.meaning} | {metric.reason} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(glossary_page(), end="")
