r"""What routing reaches: routers on RouteLLM's answers, and KCM against MCM on the demo's reviews over seeds.

    kcm run jobs/configs/reviews.yaml
    kcm run jobs/configs/reviews.yaml --until outcomes \
        --set "tasks.fractions={train: 0.40, validate: 0.15, certify: 0.27, test: 0.18}"
    python benchmarks/routing.py --storage storage --gsm8k gsm8k_responses.csv --mmlu responses [--write]

`--only NAME` prints one figure, which needs one of the three inputs:

- `--storage`: the storage path of both runs; the second is for networks that take steps, which need validate rows.
- `--gsm8k`: RouteLLM's answers to GSM8K (repository lm-sys/RouteLLM, gsm8k_responses.csv), or $KCM_GSM8K.
- `--mmlu`: RouteLLM's answers to MMLU, the folder of its mmlu_*.csv (routellm/evals/mmlu/responses).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from rich.pretty import pprint
from script import BY_STEPS, REVIEWS, keep, options
from study.seeds import interval_of, paired_over_seeds

from kcm.cascade.frontier import Frontier
from kcm.cascade.table import SPLITS
from kcm.certification.certificate import certify_policy
from kcm.certification.ledger import question_delta
from kcm.config import load_config
from kcm.errors import KcmError
from kcm.learners.training.stream import ParquetRows
from kcm.learners.training.trainer import Trainer
from kcm.routing.config import RouteColumns
from kcm.routing.evaluate import EvaluateConfig, evaluate
from kcm.routing.frame import RoutingFrame
from kcm.routing.table import table_of
from pipelines.config import RunConfig
from pipelines.stages.evaluate import scored_table
from pipelines.store.artefact import Artefact, ArtefactStore
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.sequence import SequenceArtefact
from pipelines.training.artefacts import Tuned, standing
from pipelines.training.trial import Choice, TrialPlan
from pipelines.training.worker import TrainerConfig, TrainerPlan

GSM8K_COLUMNS = {
    "text": "prompt",
    "small_correct": "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "large_correct": "gpt-4-1106-preview",
}
GSM8K_RESPONSE = {"small_response": "mistralai/Mixtral-8x7B-Instruct-v0.1_response"}
NUM_SEEDS = 10
_OF_SEED = ("area", "calls_saved", "points_lost")


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
    """The demo on test over 10 seeds of projections, initial weights and orders of tasks, KCM less each control.

    `area` is that under the deferral curve; `calls_saved` and `points_lost` are those of what is deployed after a first
    look at the certify rows, its gate and threshold chosen as the demo chooses them. `by_steps` is the same of networks
    that replay trains with one point of the search, MCM's an MLP, and `kcm_minus_mlp` the demo's KCM less that MLP.
    """
    solved = _over_seeds(inputs, "solved", "collaborators=[kcm, mcm, linear]")
    trained = _over_seeds(inputs, "trained", *BY_STEPS)
    less_mlp = {
        figure: interval_of(paired_over_seeds(solved[figure]["kcm"], trained[figure]["mcm"])) for figure in _OF_SEED
    }
    return {"seeds": NUM_SEEDS, **_kcm_less(solved), "by_steps": _kcm_less(trained), "kcm_minus_mlp": less_mlp}


def _over_seeds(inputs: Inputs, how: Literal["solved", "trained"], *overrides: str) -> pd.DataFrame:
    """A row a seed, a column for every figure and collaborator."""
    config = load_config(RunConfig, REVIEWS, list(overrides))
    features, outcomes = _rows_for(how, inputs)
    found: list[dict[str, Any]] = []
    tasks = [
        ParquetRows(task, features.fetched(number), outcomes.fetched(number))
        for number, task in enumerate(features.names.tasks)
    ]
    for seed in range(NUM_SEEDS):
        order = np.random.default_rng(seed).permutation(len(tasks))
        configured = {name: getattr(config, name) for name in TrainerConfig.model_fields} | {"seed": seed}
        plan = TrainerPlan(TrainerConfig(**configured), features, outcomes)
        for name in config.collaborators:
            collaborator, ordered = plan.collaborator(name), [tasks[i] for i in order]
            trainer = Trainer(collaborator, plan.learner(name), ordered, config.train, config.distill, seed=seed)
            trainer.run()
            tuned = _tuned(plan, config, name, trainer.state_dict())
            scored = scored_table(tuned, features, outcomes)
            validate, certify_rows, test = (scored.rows(split) for split in SPLITS)
            first_look = question_delta(config.certificate.delta, 1)
            policy, _ = certify_policy(validate, certify_rows, tuned.policy, config.certificate, delta=first_look)
            keeps_N = policy.keep(test.score, test.task)
            cascade_N = np.where(keeps_N, test.small_correct, test.large_correct)
            lost = 100 * float(test.large_correct.mean() - cascade_N.mean())
            figures = (Frontier.of(test).area(), float(keeps_N.mean()), lost)
            found.append({"seed": seed, "name": name} | dict(zip(_OF_SEED, figures, strict=True)))
    return pd.DataFrame(found).pivot(index="seed", columns="name")


def _rows_for(how: Literal["solved", "trained"], inputs: Inputs) -> tuple[FeaturesArtefact, OutcomesArtefact]:
    """The newest run whose splits fit: learners that take steps need validate rows, the others have none."""
    every = [each.as_a(FeaturesArtefact) for each in inputs.artefacts("features")]
    fitting = [each for each in every if (each.num_rows("validate") > 0) == (how == "trained")]
    if not fitting:
        raise KcmError(f"no run for collaborators that are {how}", where=str(inputs.storage))
    features = min(fitting, key=lambda each: each.dim)  # the collaborator's; the large model's vectors are wider
    answered = (each.as_a(OutcomesArtefact) for each in inputs.artefacts("outcomes", "large.json"))
    sequence = features.sequence.path
    return features, next(each for each in answered if each.source(SequenceArtefact, "tasks").path == sequence)


def _tuned(plan: TrainerPlan, config: RunConfig, name: str, state: dict[str, Any]) -> Tuned:
    """Gate and policy of a trained collaborator: the best of all gates and scopes on the rows that choose."""
    trained: Any = SimpleNamespace(state=lambda name: state)
    scratch: Any = None  # nothing is trained
    max_loss = config.tune.allowed_loss(config.certificate.epsilon)
    trials = TrialPlan(plan, trained, scratch, max_loss, config.certificate)
    weights = config.distill.large_weight, config.distill.judge_weight
    ways = product(config.tune.gates, config.tune.scopes)
    choices = [Choice(config.train.peak_rate, *weights, gate, scope) for gate, scope in ways]
    return max((trials.evaluate(name, choice) for choice in choices), key=lambda tuned: standing(tuned.reached))


def _kcm_less(found: pd.DataFrame) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for figure in _OF_SEED:
        by = found[figure]
        less = {
            f"kcm_minus_{each}": interval_of(paired_over_seeds(by["kcm"], by[each])) for each in by if each != "kcm"
        }
        figures[figure] = less | by.mean().to_dict()
    return figures


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
