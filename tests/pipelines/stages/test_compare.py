"""Promise: a certify row that takes another route, or is answered otherwise, in another runtime is found."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from kcm.bundle.bundle import Bundle
from kcm.bundle.computed import Comparison, ComputedBy
from kcm.cascade.policy import ESCALATE_ALL, Decision, Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.encoders import TextEncoderConfig
from kcm.errors import KcmError
from kcm.inputs.content import Content
from kcm.large import ClassifierConfig, Item, LinearHead, Prompts, Resources
from kcm.learners import FinetuneConfig
from kcm.tasks.sequence import write_description
from pipelines.batch import pool
from pipelines.context import Context
from pipelines.progress import Reporter
from pipelines.stages.compare import compare, decisions, different
from pipelines.stages.register import BundleArtefact
from pipelines.store.artefact import Artefact, ArtefactStore, Recipe
from pipelines.store.features import features_table, write_rows
from pipelines.store.outcomes import Answers
from tests.kcm.bundle.test_bundle import bundle, certificate
from tests.tiny_bert import save_bert

NUM = 40
LARGE_N = np.zeros(NUM, dtype=np.int64)


@pytest.fixture
def features_ND() -> Any:
    return np.random.default_rng(1).normal(size=(NUM, bundle().collaborator.in_features)).astype(np.float32)


def deployed(features_ND: Any, **policy: Any) -> Bundle:
    """A cascade that keeps about half of these rows."""
    one = bundle(policy=Policy())
    scores = one.gate.score(features_ND, *_logits(one, features_ND))
    threshold = float(np.sort(scores)[NUM // 2 : NUM // 2 + 2].mean())
    decision = Decision(decision="threshold", threshold=threshold)
    return bundle(policy=Policy(decision=decision, **policy), prompts=Prompts(top_k=2))


def _logits(one: Bundle, features_ND: Any) -> Any:
    from kcm.bundle.runtime import logits

    return logits(one.collaborator, features_ND)


def test_features_that_differ_in_their_last_digits_change_nothing(features_ND: Any) -> None:
    one = deployed(features_ND)
    here, there = (decisions(one, rows_ND, LARGE_N, "tweets") for rows_ND in (features_ND, features_ND * (1 + 1e-7)))
    assert 0 < here["with task"].sum() < NUM
    assert not different(here, there).any()


def test_a_row_that_takes_another_route_is_found_and_no_other(features_ND: Any) -> None:
    one = deployed(features_ND)
    here = decisions(one, features_ND, LARGE_N, "tweets")
    kept, escalated = (int(np.flatnonzero(here["with task"] == keeps)[0]) for keeps in (True, False))
    moved_ND = features_ND.copy()
    moved_ND[escalated] = features_ND[kept]
    assert np.flatnonzero(different(here, decisions(one, moved_ND, LARGE_N, "tweets"))).tolist() == [escalated]


def test_an_answer_of_the_large_model_is_found_on_kept_rows_too(features_ND: Any) -> None:
    one = deployed(features_ND)
    here = decisions(one, features_ND, LARGE_N, "tweets")
    kept = int(np.flatnonzero(here["with task"])[0])
    other_N = LARGE_N.copy()
    other_N[kept] = 1  # the loss is against what it would have answered
    assert np.flatnonzero(different(here, decisions(one, features_ND, other_N, "tweets"))).tolist() == [kept]


def test_the_route_counts_with_and_without_the_task(features_ND: Any) -> None:
    one = deployed(features_ND, task_decisions={"movies": ESCALATE_ALL})
    found = decisions(one, features_ND, LARGE_N, "movies")
    assert not found["with task"].any()
    assert found["without task"].any()


# -- the certify rows of a storage -------------------------------------------------------------------------------------

ONNX, TORCH = (ComputedBy(encoder=f"{runtime} on cpu", large=f"{runtime} on cpu") for runtime in ("onnx", "torch"))
WORDS = [*"abcdefghijklmnopqrst"]
SPLITS = {"films": ["train", *["certify"] * 19], "tweets": ["train"] * 20}  # which has no certify rows


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A cascade around a real encoder, which keeps half of the words."""
    model = save_bert(tmp_path_factory.mktemp("bert"), WORDS)
    encoder = TextEncoderConfig(model=str(model), runtime="torch")
    head = LinearHead(np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32), np.zeros(2, np.float32))
    large = ClassifierConfig(encoder=encoder)
    labels = ("negative", "positive")
    one = Bundle(
        collaborator=Collaborator(32, 2, NetworkConfig(hidden=(4,)), "kan", seed=0).requires_grad_(False),
        seed=0,
        label_names=labels,
        task_names=tuple(SPLITS),
        encoder=encoder,
        encoder_identity=encoder.identity(model),
        large=large,
        large_identity=large.identity(labels, model, head=head),
        large_head=head,
        policy=Policy(),
        learner=FinetuneConfig(),
        certificates={None: certificate()},
        certified_by=ONNX,
    )
    features_ND = features_of(one)
    scores = np.sort(one.gate.score(features_ND, *_logits(one, features_ND)))
    return replace(one, policy=Policy(decision=Decision(decision="threshold", threshold=float(scores[9:11].mean()))))


def features_of(cascade: Bundle) -> np.ndarray:
    """Those of the words [N, D]."""
    return cascade.encoder.build(Path(), "cpu").encode([Content(word) for word in WORDS])


def finished_run(store: ArtefactStore, cascade: Bundle, *, moved: bool = False, stage: str = "evaluate") -> Artefact:
    """What a run leaves whose tasks have these words; on a bucket this node has nothing of it.

    With `moved` a row that was kept is certified with the features of one that was not.
    """
    features_ND = features_of(cascade)
    model = cascade.large.build(cascade.label_names, Path(), Resources(head=cascade.large_head))
    answers = Answers.of(model.answer([Item(word, Content(word)) for word in WORDS]), len(cascade.label_names))
    if moved:
        keeps_N = decisions(cascade, features_ND, answers.label_N, "films")["with task"]
        features_ND[1 + np.flatnonzero(keeps_N[1:])[0]] = features_ND[1 + np.flatnonzero(~keeps_N[1:])[0]]
    rows = [
        pa.table(
            {
                "id": [f"{task} {word}" for word in WORDS],
                "text": WORDS,
                "label": [0] * len(WORDS),
                "group": [""] * len(WORDS),
                "split": splits,
            }
        )
        for task, splits in SPLITS.items()
    ]

    def sequence(folder: Path) -> None:
        tasks = [{"name": task, "label_names": cascade.label_names} for task in SPLITS]
        write_description(folder, {"label_names": cascade.label_names, "none_label": None, "tasks": tasks})

    def written(
        stage: str, make: Callable[[pa.Table], pa.Table] | None, *inputs: Artefact, more: Any = None
    ) -> Artefact:
        def write(folder: Path, scratch: Path) -> None:
            for number, table in enumerate(rows if make else ()):
                write_rows(folder, number, make(table))
            if more:
                more(folder)

        return store.build(Recipe(stage, 1, {}, inputs), write)[0]

    tasks = written("tasks", lambda table: table, more=sequence)
    features = written("features", lambda table: features_table(table, features_ND, np.zeros(len(table))), tasks)
    outcomes = written("outcomes", answers.table, features)
    last = written(stage, None, features, outcomes, more=lambda folder: (folder / "it.json").write_text("{}"))
    made = written("register", None, last, more=lambda folder: cascade.write(folder / "bundle"))
    if store.storage.is_remote:
        shutil.rmtree(store.root)
    return store.named("register", made.fingerprint)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cluster that another test has started, whose actors would know nothing of the bucket."""
    monkeypatch.setattr(pool.ray, "is_initialized", lambda: False)


def compared(store: ArtefactStore, artefact: Artefact, assets_dir: Path, connects: list[str]) -> Comparison:
    made = artefact.as_a(BundleArtefact)
    context = Context("words", store, assets_dir, reporter=Reporter(Console(quiet=True)))
    context.connect = lambda: connects.append("now")
    return compare(made, Bundle.read(made.bundle).in_runtimes("torch", "torch"), ("cpu", "cpu"), context)


@pytest.mark.usefixtures("alone")
def test_all_certify_rows_are_computed_once_where_a_task_has_none(place: str, cascade: Bundle, tmp_path: Path) -> None:
    store, connects = ArtefactStore(place), list[str]()
    artefact = finished_run(store, cascade)
    expected = Comparison(computed_by=TORCH, num_rows=19, num_different=0)
    assert compared(store, artefact, tmp_path, connects) == expected
    assert compared(ArtefactStore(place), artefact, tmp_path, connects) == expected
    assert connects == ["now"]  # nothing is computed, so that no cluster is needed


@pytest.mark.usefixtures("alone")
def test_a_row_that_was_certified_on_the_other_route_is_counted(cascade: Bundle, tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path)
    assert compared(store, finished_run(store, cascade, moved=True), tmp_path, []).num_different == 1


@pytest.mark.usefixtures("alone")
def test_what_was_certified_on_traffic_is_refused(cascade: Bundle, tmp_path: Path) -> None:
    store = ArtefactStore(tmp_path)
    with pytest.raises(KcmError, match="certified on traffic"):
        compared(store, finished_run(store, cascade, stage="certify"), tmp_path, [])
