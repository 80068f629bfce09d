"""The demo's figures for docs/results.md, from the result of `make demo`.

    python benchmarks/demo.py [--result storage/runs/reviews/result.json] [--write]

Shares in %, differences in points, with their 95% intervals; the deployed collaborator first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.script import keep, options
from kcm.report.reading import named


def main() -> None:
    parser = options(__doc__, results="demo")
    parser.add_argument("--result", type=Path, default=Path("storage/runs/reviews/result.json"))
    arguments = parser.parse_args()
    result = json.loads(arguments.result.read_text(encoding="utf-8"))
    figures = {"command": "make demo", "rows": list(rows(result))}
    print(json.dumps(figures, indent=1, ensure_ascii=False))
    if arguments.write:
        keep("demo", figures)


def rows(result: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """A row for each collaborator overall, then for each task and collaborator."""
    names = named(result)
    tasks = {"overall": [(name, result[name]["overall"]) for name in names]}
    tasks |= {
        task: [(name, result[name]["tasks"][task]) for name in names] for task in result[next(iter(names))]["tasks"]
    }
    for task, sides in tasks.items():
        for name, quality in sides:
            yield {"task": task, "collaborator": names[name]} | row(quality)


def row(quality: Mapping[str, Any]) -> dict[str, str]:
    """One collaborator's figures as they are printed."""
    sides = {side: f"{side}_accuracy" for side in ("small", "large", "cascade")}
    accuracies = {
        side: "{:.1f} ({:.1f}–{:.1f})".format(*percent(quality[key], *quality[f"{key}_interval"]))
        for side, key in sides.items()
    }
    ends = percent(quality["difference"], *quality["difference_interval"])
    difference = "{:+.1f} ({:+.1f} to {:+.1f})".format(*ends).replace("-", "−")
    shares = {name: f"{100 * quality[name]:.1f}" for name in ("call_rate", "calls_saved", "cost_saved")}
    return accuracies | {"difference": difference} | shares


def percent(*shares: float) -> list[float]:
    return [100 * share + 0.0 for share in shares]


if __name__ == "__main__":
    main()
