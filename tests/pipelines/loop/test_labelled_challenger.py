"""Labels are asked for the challenger of the last turn, where its certificate keeps less than its search wanted."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kcm.bundle.bundle import Bundle
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.certification.certificate import CertificateConfig, certificates_json
from kcm.config import load_config
from kcm.errors import DataError
from kcm.parquet import write_table
from pipelines.config import RunConfig
from pipelines.loop.gates.items_to_label import drawn_for, sufficient_labels
from pipelines.loop.state import LoopState
from pipelines.loop.window.certify import certify_window
from pipelines.loop.window.judged_window import JudgedWindow
from pipelines.registry.champion import Champion
from pipelines.store.artefact import Recipe, write_json
from pipelines.store.records import StoredLedger
from tests.pipelines.loop.windows import NUM, START, facts_of, judged_of, made_drawn, made_window


def champion(digest: str, bundle: str = "none") -> Champion:
    return Champion(digest=digest, version="reviews/1", bundle=bundle, promoted_at="2026-03-01", by="run")


class Turned:
    """A storage after a turn, whose artefacts hold what labels are drawn from."""

    def __init__(self, folder: Path, rate: float) -> None:
        self.config = load_config(RunConfig, Path("jobs/configs/reviews.yaml"), [f"storage_path={folder}"])
        self.window = made_window(NUM, rate=rate)
        made_drawn(folder, self.window).drawn.log.close()
        (folder / "log.db").rename(folder / "feedback.db")
        self.state = LoopState.of(self.config)
        self.state.champions.pointer.swap(0, champion("parent"))
        store = self.state.store
        window, _ = store.build(Recipe("window", 1, {}), self._window)
        evaluated, _ = store.build(Recipe("reevaluate", 1, {}, (window,)), self._evaluate)
        bundle, _ = store.build(Recipe("register", 1, {}, (evaluated,)), lambda folder, _: (folder / "bundle").mkdir())
        self.candidate = champion("child", bundle.fingerprint)
        self.close(candidate=self.candidate.model_dump(mode="json"))

    def close(self, **changes: Any) -> None:
        turn = {"version": "reviews/2", "digest": "child", "champion_digest": "parent", "candidate": None}
        self.state.attempts.close("turn", turn | changes)

    def _window(self, folder: Path, _: Path) -> None:
        write_json(folder / "window.json", facts_of(self.window).model_dump(mode="json"))
        write_table(self.window, folder / "window.parquet")

    def _evaluate(self, folder: Path, _: Path) -> None:
        judged, facts = judged_of(self.window), facts_of(self.window)
        policy, certificates = certify_window(
            judged,
            Policy(decision=KEEP_ALL),
            CertificateConfig(),
            facts,
            delta=0.06,
            expires_at=START + timedelta(days=30),
        )
        (folder / "kcm").mkdir()
        policy.save(folder / "kcm")
        write_json(folder / "result.json", {"kcm": {"certificate": certificates_json(certificates)}})
        JudgedWindow(judged.rows.assign(purpose="certify")).write(folder / "kcm" / "window.parquet")


@pytest.fixture
def turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Turned]:
    monkeypatch.setattr(Bundle, "read", lambda _: SimpleNamespace(answer_names=("yes", "no")))
    return lambda rate: Turned(tmp_path, rate)


def test_searched_policy_draws_items_and_opens_one_look(turned: Callable[[float], Turned]) -> None:
    """Promise: items are drawn for the searched policy and open one look."""
    found = turned(0.05)
    with drawn_for(found.config) as drawn:
        first, plan = drawn.items(), drawn.plan
        drawn.answer({first[0].id: "no"})
    assert plan.policy.decision == KEEP_ALL
    assert plan.labels == ("yes", "no")
    assert len(first) > 20
    with drawn_for(found.config) as again:
        assert again.plan == plan
        assert again.items()[0].label == "no"
    (look,) = StoredLedger.of_lineage(found.state.store.control, "reviews").looks()
    assert look.spend == plan.delta


def test_no_label_is_asked_for_what_is_certified_as_searched(turned: Callable[[float], Turned]) -> None:
    with pytest.raises(DataError, match="no label is needed"), drawn_for(turned(0.0).config):
        pass


def test_no_draw_without_challenger_or_with_another_champion(turned: Callable[[float], Turned]) -> None:
    """Promise: nothing is drawn before a challenger or under another champion."""
    found = turned(0.05)
    found.state.champions.pointer.swap(1, champion("another"))
    for _ in range(2):
        with pytest.raises(DataError, match="no challenger waits"), drawn_for(found.config):
            pass
        found.close()
    assert json.dumps(StoredLedger.of_lineage(found.state.store.control, "reviews").looks()) == "[]"


def test_labels_suffice_once_they_certify_what_was_searched(turned: Callable[[float], Turned]) -> None:
    found = turned(0.05)
    assert sufficient_labels(found.config, found.state) is None
    assert not StoredLedger.of_lineage(found.state.store.control, "reviews").looks()
    with drawn_for(found.config) as drawn:
        items = drawn.items()
        drawn.answer(dict.fromkeys([each.id for each in items[:3]], "yes"))
        assert sufficient_labels(found.config, found.state) is None
        drawn.answer(dict.fromkeys([each.id for each in items], "yes"))
    labels = sufficient_labels(found.config, found.state)
    assert labels is not None
    assert labels.plan.policy.decision == KEEP_ALL
    assert set(labels.answers) == {each.id for each in items}
