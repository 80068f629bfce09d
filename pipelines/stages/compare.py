"""All certify rows of a bundle as a service would compute them: whether its certificate counts there, too.

Routes, answers and prompts are held against those that were certified. Where nothing computes the features, or the
answers of the large model, in another runtime, they are taken as they are: no server is asked, nothing is paid for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import softmax

from kcm.bundle.bundle import Bundle
from kcm.bundle.computed import Comparison
from kcm.bundle.models import large_names
from kcm.bundle.runtime import logits
from kcm.errors import ArtefactError, KcmError
from kcm.large import Prompts
from kcm.parquet import read_table, write_table
from pipelines.batch.asking import LargeSpec, ask_shards
from pipelines.batch.encoding import encode_shards
from pipelines.batch.pool import Made, run_anywhere, run_remotely
from pipelines.context import Attempt, Context
from pipelines.stages.evaluate import Evaluate, EvaluatedArtefact
from pipelines.stages.features import Features
from pipelines.stages.outcomes import Outcomes
from pipelines.stages.register import BundleArtefact
from pipelines.store.artefact import Artefact, Recipe, write_json
from pipelines.store.features import FeaturesArtefact, feature_matrix
from pipelines.store.outcome_table import PartFiles
from pipelines.store.outcomes import OutcomesArtefact, in_label_list
from pipelines.store.sequence import SequenceArtefact
from pipelines.store.storage import Storage

STAGE, VERSION = "compare", 1
_COMPARISON = "comparison.json"
_CERTIFY = pc.field("split") == "certify"


def compare(artefact: BundleArtefact, served: Bundle, devices: tuple[str, str], context: Context) -> Comparison:
    """Compare what was certified with `served`, the same bundle in the runtimes of a service.

    `devices` are those of its encoder and of its large model. Done once for a bundle and what computes it. Raises
    KcmError for a bundle whose certify rows cannot be replayed.
    """
    certified, computed_by = served.certified_by, served.computed_by(*devices)
    if certified is None:
        raise KcmError("the bundle has no certificate", where=artefact.where)
    _require_rows(artefact)
    if served.policy.prompt != "none" and computed_by.large != certified.large:
        raise KcmError(
            f"the large model answers under prompt {served.policy.prompt!r}: its answers cannot be compared",
            where=artefact.where,
            hint=f"Serve the large model as it was certified, in {certified.large}",
        )
    recipe = Recipe(STAGE, VERSION, {"computed_by": computed_by.model_dump()}, (artefact,))
    write = partial(_write, artefact=artefact, served=served, devices=devices)
    found = context.build(recipe, write)
    return Comparison.model_validate(json.loads(found.file(_COMPARISON).read_text(encoding="utf-8")))


def _require_rows(artefact: Artefact) -> None:
    """Raise KcmError for a bundle that was certified on traffic: its log need not hold the inputs any more."""
    try:
        artefact.source(EvaluatedArtefact, Evaluate.stage)
    except ArtefactError:
        raise KcmError(
            "it was certified on traffic, which cannot be replayed",
            where=artefact.where,
            hint="Serve it as it was certified, or `kcm update` with the cluster that computes as the service does",
        ) from None


def _write(attempt: Attempt, artefact: BundleArtefact, served: Bundle, devices: tuple[str, str]) -> None:
    features: FeaturesArtefact = artefact.source(FeaturesArtefact, Features.stage)
    outcomes: OutcomesArtefact = artefact.source(OutcomesArtefact, Outcomes.stage)
    certified, computed_by = served.certified_by, served.computed_by(*devices)
    assert certified is not None
    storage, parts = attempt.context.store.storage, PartFiles.all_of(features, outcomes, ["certify"])
    rows = {part.features.name: attempt.scratch / "rows" / part.features.name for part in parts}
    calls = ((features.sequence, name, target, storage) for name, target in rows.items())
    num_rows = dict(zip(rows, run_anywhere(_keep_certify_rows, *calls), strict=True))
    parts = [part for part in parts if num_rows[part.features.name]]  # no encoder need know what to do with no rows
    rows = {part.features.name: rows[part.features.name] for part in parts}
    encoded, asked = dict[str, Made](), dict[str, Made]()
    if computed_by.encoder != certified.encoder:
        context = _on(devices[0], attempt.context)
        encoded = encode_shards(context, served.encoder, rows, scratch=attempt.scratch / "encoded", bar=attempt.bar)
    if computed_by.large != certified.large:
        context, spec = _on(devices[1], attempt.context), _spec(served)
        scratch = attempt.scratch / "asked"
        asked, _ = ask_shards(context, spec, rows, scratch=scratch, bar=attempt.bar, head=served.large_head)
    shards = [
        (
            artefact.bundle,
            features.names.tasks[part.task],
            partial(features.readable, part.features.name),
            partial(outcomes.readable, part.answers.name),
            _source(encoded.get(part.features.name), storage),
            _source(asked.get(part.answers.name), storage),
        )
        for part in parts
    ]
    counts = run_remotely(_count, *shards)
    comparison = Comparison(
        computed_by=computed_by,
        num_rows=sum(count for count, _ in counts),
        num_different=sum(different for _, different in counts),
    )
    write_json(attempt.folder / _COMPARISON, comparison.model_dump(mode="json"))


def _on(device: str, context: Context) -> Context:
    """The context with actors on this device."""
    return replace(context, cluster=context.cluster.model_copy(update={"use_gpu": device != "cpu"}))


def _spec(served: Bundle) -> LargeSpec:
    return LargeSpec(served.large, large_names(served), len(served.label_names))


def _keep_certify_rows(sequence: SequenceArtefact, shard: str, target: Path, storage: Storage) -> int:
    """Put the certify rows of a shard, if there are any, where the actors of any node read them; how many there are."""
    rows = read_table(sequence.readable(shard), where=_CERTIFY)
    if len(rows):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_table(rows, target)
        storage.keep(target)
    return len(rows)


_Source = Callable[[], Path | BinaryIO]  # what pyarrow reads a file from


def _source(made: Made | None, storage: Storage) -> _Source | None:
    return None if made is None else partial(storage.readable, made.kept.path)


def _count(
    bundle_folder: Path, task: str, shard: _Source, answers: _Source, encoded: _Source | None, asked: _Source | None
) -> tuple[int, int]:
    """The certify rows of a shard of features and of the answers to it, and those that differ in what was made anew."""
    bundle = Bundle.read(bundle_folder)
    before, large = (read_table(each(), where=_CERTIFY) for each in (shard, answers))
    large_label_N = _large_label(large, bundle)
    now = before if encoded is None else read_table(encoded())
    large_now_N = large_label_N if asked is None else _large_label(read_table(asked()), bundle)
    if not before["id"].equals(large["id"]) or not before["id"].equals(now["id"]):
        raise ArtefactError("features and outcomes hold different rows", where=f"a shard of task {task!r}")
    decided = decisions(bundle, feature_matrix(before), large_label_N, task)
    decided_now = decisions(bundle, feature_matrix(now), large_now_N, task)
    return len(before), int(different(decided, decided_now).sum())


def decisions(
    bundle: Bundle, features_ND: NDArray[np.float32], large_label_N: NDArray[np.int64], task: str
) -> Mapping[str, NDArray[Any]]:
    """What a cascade makes of N inputs of a task, by what has to be the same where it is certified.

    The route with the task and without it, the answer on either, the large model's answer, and the prompt as adapters
    write it: probabilities have two digits there.
    """
    judge_NC, small_NC = logits(bundle.collaborator.export(), features_ND)
    score_N, policy = bundle.gate.score(features_ND, judge_NC, small_NC), bundle.policy
    small_label_N = small_NC.argmax(axis=1)
    routes = {"with task": policy.keep(score_N, [task] * len(score_N)), "without task": policy.keep(score_N)}
    answers = {f"answer {name}": np.where(keeps_N, small_label_N, large_label_N) for name, keeps_N in routes.items()}
    prompts, mode = bundle.prompts or Prompts(), policy.prompt_for(task)
    shown = [
        str([(label, f"{p:.2f}") for label, p in prompts.write(mode, row_C).suggestions]) if not keeps else ""
        for row_C, keeps in zip(softmax(small_NC / policy.temperature, axis=1), routes["with task"], strict=True)
    ]
    return routes | answers | {"large": large_label_N, "prompt": np.array(shown, dtype=object)}


def different(decided: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """The rows [N] that are not the same in all that `decisions` gives."""
    found: NDArray[np.bool_] = np.logical_or.reduce([decided[name] != other[name] for name in decided])
    return found


def _large_label(answers: pa.Table, bundle: Bundle) -> NDArray[np.int64]:
    found: NDArray[np.int64] = in_label_list(answers, len(bundle.label_names))["large_label"].to_numpy()
    return found
