"""The demo over ten splits of its rows: KCM less its controls, and what learner, gate and certificate are each worth.

    python benchmarks/routing.py [--splits 10] [--write]

A split is a run of jobs/configs/reviews.yaml up to its certificate, with a seed of its own (benchmarks/over_splits.py).
The small side reads the embedding only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.pretty import pprint

from benchmarks.machine import machine
from benchmarks.over_splits import NUM_SPLITS, Side, cost_ratio, interval, over_splits, route, summary
from benchmarks.script import CONTROLS, REVIEWS, keep, options
from benchmarks.study.exact import exact_cut
from kcm.certification.ledger import question_delta
from kcm.config import load_config
from pipelines.config import RunConfig
from pipelines.training.artefacts import TrainedArtefact, Tuned
from pipelines.training.trial import Choice, TrialPlan

PLAIN = {"gate": "confidence", "scope": "global"}
SCEPTIC = "linear, plain, exact"


def crossed(run: Mapping[str, Any], sides: Mapping[str, Side], config: RunConfig) -> dict[str, Any]:
    """Calls saved and accuracy lost by `learner, gate, certificate`, on the test rows of a split.

    A plain gate is the largest probability, with one threshold. The exact certificate keeps down to the lowest score
    that an exact binomial test of certify rows passes; it takes the rows of a review for independent.
    """
    certificate, cells = config.certificate, {}
    first_look = question_delta(certificate.delta, 1)
    for name in ("kcm", "linear"):
        searched = run["tune"].load(name)
        is_plain = PLAIN.items() <= searched.choice.items()
        plain = sides[name] if is_plain else Side.of(by_confidence(run, searched, name, config), run, certificate)
        for gate, side in (("ours", sides[name]), ("plain", plain)):
            cut = exact_cut(side.table.rows("certify"), certificate.epsilon, first_look)
            cells[f"{name}, {gate}, ours"] = route(side.test, side.keeps_N)
            cells[f"{name}, {gate}, exact"] = route(side.test, side.test.score > cut)
    return {"crossed": cells}


def by_confidence(run: Mapping[str, Any], searched: Tuned, name: str, config: RunConfig) -> Tuned:
    """The same collaborator with one threshold on its largest probability."""
    trained: TrainedArtefact = run["train"]
    scratch: Any = None  # nothing is trained
    max_loss = config.tune.allowed_loss(config.certificate.epsilon)
    plan = TrialPlan(trained.plan, trained, scratch, max_loss, config.certificate)
    return plan.evaluate(name, Choice(**searched.choice | PLAIN))


def crossed_summary(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over splits, what a sceptic's choice saves less, and the splits in which more was lost than promised."""
    rows, figures = cells[0]["rows"], {}
    for name in cells[0]["crossed"]:
        saved, lost = (np.array([cell["crossed"][name][key] for cell in cells]) for key in ("saved", "lost"))
        theirs = np.array([cell["crossed"][SCEPTIC]["saved"] for cell in cells])
        means = {"saved": float(saved.mean()), "lost": float(lost.mean()), "over": int((lost > 0.02).sum())}
        figures[name] = means | {"saves_more": interval(saved - theirs, rows)}
    return figures


def table_lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Calls saved and points lost of every collaborator."""
    for name, side in figures["sides"].items():
        yield f"{name:10} saved {100 * side['saved']:.1f} lost {100 * side['lost']:.2f} area {100 * side['area']:.2f}"
    for name, side in figures["crossed"].items():
        yield f"{name:22} saved {100 * side['saved']:.1f} lost {100 * side['lost']:.2f}"


def main() -> None:
    """Measure all splits, print the figures, and write them into the results with `--write`."""
    parser = options(__doc__, assets=True, storage="storage/routing", results="routing")
    parser.add_argument("--splits", type=int, default=NUM_SPLITS)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    places = [CONTROLS, f"assets_path={arguments.assets.absolute()}", *arguments.overrides]
    config = load_config(RunConfig, REVIEWS, places)
    cells = []
    for cell in over_splits(config, arguments.storage, crossed, arguments.splits):
        cells.append(cell)
        pprint({name: side["saved"] for name, side in cell["sides"].items()})
    figures = summary(cells) | {"crossed": crossed_summary(cells), "machine": machine()}
    figures["cost_ratio"] = cost_ratio(load_config(RunConfig, REVIEWS, places))
    for line in table_lines(figures):
        print(line)
    if arguments.write:
        keep("routing", {"splits": figures})


if __name__ == "__main__":
    main()
