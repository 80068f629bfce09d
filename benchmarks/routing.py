"""What routing reaches: routers on RouteLLM's answers, and KCM against MCM on the demo's reviews over seeds.

    kcm run jobs/configs/reviews.yaml
    python benchmarks/routing.py --storage storage --gsm8k gsm8k_responses.csv --mmlu responses [--write]

`--only NAME` prints one figure, which needs one of the three inputs:

- `--storage`: the storage path of a finished run of jobs/configs/reviews.yaml.
- `--gsm8k`: RouteLLM's answers to GSM8K (repository lm-sys/RouteLLM, gsm8k_responses.csv), or $KCM_GSM8K.
- `--mmlu`: RouteLLM's answers to MMLU, the folder of its mmlu_*.csv (routellm/evals/mmlu/responses).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.pretty import pprint
from script import BY_STEPS, REVIEWS, keep, options
from study.seeds import interval_of, paired_over_seeds

from kcm.cascade.frontier import Frontier
from kcm.cascade.gate import Gate
from kcm.cascade.scored import ScoredOutcomes
from kcm.cascade.search import find_policy
from kcm.cascade.table import SPLITS
from kcm.certify.certificate import certify_policy
from kcm.certify.ledger import look_delta
from kcm.config import load_config
from kcm.errors import KcmError
from kcm.learners.training.stream import ParquetRows
from kcm.learners.training.trainer import Trainer
from kcm.routing.config import RouteColumns
from kcm.routing.evaluate import EvaluateConfig, evaluate
from kcm.routing.frame import RoutingFrame
from kcm.routing.table import table_of
from pipelines.batch.outcome_table import OutcomePart, scored_parts
from pipelines.config import RunConfig
from pipelines.store.artefact import Artefact, ArtefactStore
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.worker import TrainerConfig, TrainerPlan

GSM8K_COLUMNS = {
    "text": "prompt",
    "small_correct": "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "large_correct": "gpt-4-1106-preview",
}
GSM8K_RESPONSE = {"small_response": "mistralai/Mixtral-8x7B-Instruct-v0.1_response"}
NUM_SEEDS = 10
_SAME_LOSS = "tune.max_loss=0.01"  # the demo's


@dataclass(frozen=True)
class Inputs:
    """What a person has given; a figure asks for what it needs."""

    gsm8k: Path | None
    mmlu: Path | None
    storage: Path | None
    assets: Path

    def need(self, name: str) -> Path:
        """The path by its option's name; raises KcmError where it was not given or is not there."""
        path: Path | None = getattr(self, name)
        if path is None or not path.exists():
            raise KcmError(f"--{name} is missing, or there is nothing at {path}", hint="See the head of this file")
        return path

    def artefacts(self, stage: str, holding: str = "") -> list[Artefact]:
        """The artefacts of `stage` in the storage that hold a file of this name, the newest first; at least one."""
        found = [
            each for each in ArtefactStore(self.need("storage")).finished(stage) if (each.folder / holding).exists()
        ]
        if not found:
            raise KcmError(f"no artefact of stage {stage!r} with {holding}", where=str(self.storage))
        return found


def gsm8k(inputs: Inputs) -> dict[str, Any]:
    """APGR on RouteLLM's GSM8K answers, mean of 10 x 5 folds, against the hashed-word ridge on the same folds.

    The head's strength is chosen within the fitted folds; which statistics of a text it reads, and the shares of its
    kinds of input (kcm/routing/routers/head.py), were chosen having seen this table: the figure flatters by that much.
    """
    return _compared(_gsm8k_frame(inputs, GSM8K_COLUMNS))


def gsm8k_cascade(inputs: Inputs) -> dict[str, Any]:
    """The same once the small model has answered, as it has in a cascade: the router reads its response too.

    The response is read as the question is, and its arithmetic, which was chosen having seen this table.
    """
    return _compared(_gsm8k_frame(inputs, GSM8K_COLUMNS | GSM8K_RESPONSE))


def mmlu(inputs: Inputs) -> dict[str, Any]:
    """APGR on RouteLLM's 14,042 MMLU answers, 5 folds; the subject is the category that the routers read.

    One fold of 1,000 of these rows was looked at before.
    """
    answered = ("mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview")
    parts = [
        pd.read_csv(path).assign(subject=path.stem.removeprefix("mmlu_"))
        for path in sorted(inputs.need("mmlu").glob("mmlu_*.csv"))
    ]
    columns = RouteColumns(text="prompt", category="subject", small_correct=answered[0], large_correct=answered[1])
    table = table_of(pd.concat(parts, ignore_index=True), columns, "mmlu")
    return _compared(RoutingFrame(table, columns, None, inputs.assets), num_repeats=1)


def _gsm8k_frame(inputs: Inputs, columns: dict[str, str]) -> RoutingFrame:
    return RoutingFrame.open(inputs.need("gsm8k"), None, columns, None, inputs.assets)


def _compared(bench: RoutingFrame, num_repeats: int = 10) -> dict[str, Any]:
    result = evaluate(bench.table, bench.inputs, "score", EvaluateConfig(num_folds=5, num_repeats=num_repeats))
    kept = ("apgr", "cpt_50", "cpt_80", "auroc", "intervals")
    return {
        "apgr": result["apgr"],
        "over_the_hashed_word_ridge": result["differences"]["hashed_words"]["apgr"],
        "routers": {name: {key: found[key] for key in kept} for name, found in result["methods"].items()},
        "notes": [*result["notes"], *bench.notes],
    }


def kcm_mcm(inputs: Inputs) -> dict[str, Any]:
    """KCM less MCM on test, paired over 10 seeds of initial weights and orders of tasks, with the demo's settings: area
    under the deferral curve, and the calls that are saved, and points lost, by what is certified at a first look.

    Gate and threshold are those of plain confidence over all tasks; nothing is searched but the threshold. `by_steps`
    is the same of networks that replay trains, MCM's an MLP, and `kcm_minus_mlp` the demo's KCM less that MLP.
    """
    solved, trained = _over_seeds(inputs, ()), _over_seeds(inputs, (*BY_STEPS, _SAME_LOSS))
    return {
        "seeds": NUM_SEEDS,
        **_kcm_less_mcm(solved),
        "by_steps": _kcm_less_mcm(trained),
        "kcm_minus_mlp": {
            figure: interval_of(paired_over_seeds(by["kcm"], trained[figure]["mcm"])) for figure, by in solved.items()
        },
    }


def _over_seeds(inputs: Inputs, overrides: Iterable[str]) -> dict[str, dict[str, list[float]]]:
    """By figure and collaborator, the value of every seed."""
    config = load_config(RunConfig, REVIEWS, list(overrides))
    # Of the two feature artefacts the collaborator reads the narrower vectors.
    features = min((each.as_a(FeaturesArtefact) for each in inputs.artefacts("features")), key=lambda each: each.dim)
    outcomes = inputs.artefacts("outcomes", "large.json")[0].as_a(OutcomesArtefact)
    found: dict[str, dict[str, list[float]]] = {
        figure: {"kcm": [], "mcm": []} for figure in ("area", "calls_saved", "points_lost")
    }
    tasks = [
        ParquetRows(task, features.fetched(number), outcomes.fetched(number))
        for number, task in enumerate(features.names.tasks)
    ]
    for seed in range(NUM_SEEDS):
        order = np.random.default_rng(seed).permutation(len(tasks))
        configured = {name: getattr(config, name) for name in TrainerConfig.model_fields} | {"seed": seed}
        plan = TrainerPlan(TrainerConfig(**configured), features, outcomes)
        for name in ("kcm", "mcm"):
            collaborator, ordered = plan.collaborator(name), [tasks[i] for i in order]
            Trainer(collaborator, plan.learner(name), ordered, config.train, config.distill, seed=seed).run()
            collaborator.eval()
            validate, certify_rows, test = (
                _by_confidence(scored_parts(collaborator, Gate(), features, outcomes, (split,))) for split in SPLITS
            )
            allowed = config.tune.allowed_loss(config.certificate.epsilon)
            searched = find_policy(validate, Gate(), "global", allowed).policy
            first_look = look_delta(config.certificate.delta, 1)
            policy, _ = certify_policy(validate, certify_rows, searched, config.certificate, delta=first_look)
            keeps_N = policy.keep(test.score)
            cascade_N = np.where(keeps_N, test.small_correct, test.large_correct)
            found["area"][name].append(Frontier.of(test).area())
            found["calls_saved"][name].append(float(keeps_N.mean()))
            found["points_lost"][name].append(100 * float(test.large_correct.mean() - cascade_N.mean()))
    return found


def _kcm_less_mcm(found: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    return {
        figure: {
            "kcm_minus_mcm": interval_of(paired_over_seeds(by["kcm"], by["mcm"])),
            **{name: float(np.mean(values)) for name, values in by.items()},
        }
        for figure, by in found.items()
    }


def _by_confidence(parts: Iterable[OutcomePart]) -> ScoredOutcomes:
    tables = [part.table for part in parts]
    return ScoredOutcomes.joined([ScoredOutcomes.of(each, Gate().score(None, each.judge_logits)) for each in tables])


FIGURES: dict[str, Callable[[Inputs], dict[str, Any]]] = {
    function.__name__: function for function in (gsm8k, gsm8k_cascade, mmlu, kcm_mcm)
}


def main() -> None:
    """Print the chosen figures as they come, and write them into the results with `--write`."""
    parser = options(__doc__, assets=True, results="routing")
    parser.add_argument("--only", choices=FIGURES, action="append", help="print this figure alone; repeatable")
    parser.add_argument("--gsm8k", type=Path, default=os.environ.get("KCM_GSM8K"))
    parser.add_argument("--mmlu", type=Path)
    parser.add_argument("--storage", type=Path)
    arguments = parser.parse_args()
    inputs = Inputs(arguments.gsm8k, arguments.mmlu, arguments.storage, arguments.assets)
    torch.set_num_threads(2)
    try:
        for name in arguments.only or FIGURES:
            started = time.perf_counter()
            figures = FIGURES[name](inputs)
            pprint({name: figures, "seconds": round(time.perf_counter() - started)})
            if arguments.write:
                keep("routing", {name: figures})
    except KcmError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
