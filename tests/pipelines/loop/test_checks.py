"""The replay panel asks the questions of before, whatever labels have come since."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.large import LargeAnswer
from pipelines.loop import checks
from pipelines.loop.checks import Examine
from pipelines.registry.gates import GateConfig
from pipelines.store.outcomes import Answers, OutcomesArtefact

NUM = 40  # rows of a task
LABELS = (2, 2, 3)  # length of the list when each task was answered; then comes none of these


def rows(task: int) -> pa.Table:
    ids = [f"{task}/{row}" for row in range(NUM)]
    return pa.table({"id": ids, "split": ["test"] * NUM, "text": ids, "image": pa.array([b""] * NUM)})


@pytest.fixture
def outcomes(tmp_path: Path) -> OutcomesArtefact:
    for task, num_labels in enumerate(LABELS):
        label_N = np.arange(NUM) % (num_labels + 1)
        answers = Answers(label_N, np.full((NUM, num_labels), np.nan), np.ones(NUM), np.zeros(NUM, bool))
        pq.write_table(answers.table(rows(task)), tmp_path / f"task-{task:04}.parquet")
    return OutcomesArtefact("outcomes", "f", tmp_path)


def asked(outcomes: OutcomesArtefact, monkeypatch: pytest.MonkeyPatch, shift: int = 0) -> tuple[Any, list[int], Any]:
    """The gate's verdict, the lengths of the lists, and the tasks that were asked about."""
    lengths, tasks = list[int](), set[str]()

    def first(models: Any, num_labels: int, *_: Any) -> int:
        lengths.append(num_labels)
        return num_labels

    def answer(items: Any, num_labels: int) -> list[LargeAnswer]:
        tasks.update(item.id.split("/")[0] for item in items)
        numbers = [(int(item.id.split("/")[1]) + shift) % (num_labels + 1) for item in items]
        return [LargeAnswer(number) for number in numbers]

    monkeypatch.setattr(checks, "with_first_labels", first)
    load = lambda num_labels, *_, **__: SimpleNamespace(answer=lambda items: answer(items, num_labels))  # noqa: E731
    monkeypatch.setattr(checks, "load_large", load)
    names = [f"task {number}" for number in range(len(LABELS))]
    features: Any = SimpleNamespace(names=SimpleNamespace(tasks=names), sequence=SimpleNamespace(task=rows))
    challenger: Any = SimpleNamespace(large=SimpleNamespace(upstream=None))
    context: Any = SimpleNamespace(assets_path=Path(), cluster=SimpleNamespace(device="cpu"))
    examination = Examine.model_construct(limits=GateConfig(), seed=0, upstreams=())  # type: ignore[call-arg]
    gate = examination.panel(challenger, features, outcomes, names, context)
    return gate.verdict, lengths, tasks


def test_unchanged_model_passes_despite_new_labels(outcomes, monkeypatch) -> None:
    """Promise: a model that answers as before passes though labels have come."""
    verdict, lengths, tasks = asked(outcomes, monkeypatch)
    assert (verdict, set(lengths), tasks) == ("pass", {2}, {"0", "1"})


def test_another_model_is_noticed(outcomes, monkeypatch) -> None:
    assert asked(outcomes, monkeypatch, shift=1)[0] == "fail"
