"""A window tells each unit what it is for, and is refused, in one line, where nothing may be learned from it."""

import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.errors import DataError
from pipelines.context import Context
from pipelines.loop.window.ask_again import answered_anew
from pipelines.loop.window.stage import LogWindow, WindowArtefact
from pipelines.progress import Reporter
from pipelines.serve.log.window import row_ids
from pipelines.store.artefact import ArtefactStore
from pipelines.store.outcomes import Answers
from tests.pipelines.loop.logged import MadeLog, decisions, unit
from tests.pipelines.loop.windows import judged_of, made_window

TEXTS = [f"text {number}" for number in range(400)]
SPLITS = {"train": 0.4, "validate": 0.1, "certify": 0.3, "test": 0.2}
Write = Callable[..., WindowArtefact]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the window of a log."""

    def write(log: MadeLog | None = None, **changes: Any) -> WindowArtefact:
        log = log or MadeLog(decisions(TEXTS, ["good"] * 400))
        bundle = SimpleNamespace(
            label_names=("bad", "good"),
            none_label=None,
            task_names=("films",),
            large_identity="large-1",
            large=SimpleNamespace(fits_on_train=changes.pop("fitted", False)),
            policy=SimpleNamespace(lowest_cut=changes.pop("cut", 0.5)),
        )
        known = {
            "application": "made",
            "after": 0,
            "upto": log.table.num_rows,
            "champion": "digest",
            "fractions": SPLITS,
            "bundle": bundle,
            "served_as": "made/1",
            "log": log,
            "split_by_unit": {},
        }
        plan = LogWindow.model_validate(known | changes)
        context = Context("made", ArtefactStore(tmp_path), tmp_path, reporter=Reporter())
        shutil.rmtree(tmp_path / "artefacts", ignore_errors=True)  # the log is another one under the same name
        return plan.build({}, context).as_a(WindowArtefact)

    return write


def test_units_follow_the_fractions_and_are_never_split(write: Write) -> None:
    """Promise: units are shared out by the fractions and a unit is never split."""
    window = write(MadeLog(decisions(TEXTS + TEXTS, ["good"] * 800)))
    purposes = window.table["purpose"].to_pylist()
    assert purposes[:400] == purposes[400:]
    for split, count in Counter(purposes[:400]).items():
        assert count == pytest.approx(400 * SPLITS[split], abs=40)


def test_more_traffic_moves_no_unit(write: Write) -> None:
    first = write(upto=200).table["purpose"].to_pylist()
    assert write().table["purpose"].to_pylist()[:200] == first


def test_a_unit_that_the_champion_holds_keeps_its_split(write: Write) -> None:
    held = {unit(text): "test" for text in TEXTS[:40]} | {unit(text): "train" for text in TEXTS[40:80]}
    window = write(split_by_unit=held)
    assert window.table["purpose"].to_pylist()[:80] == ["test"] * 40 + ["train"] * 40


def test_unknown_labels_are_counted_until_they_are_named(write: Write) -> None:
    """Promise: labels outside the list stop nothing; a named label is new without any feedback."""
    rows = decisions(TEXTS, ["good"] * 400)
    for number in range(7):
        rows[number] |= {"label": "refund"}
    facts = write(MadeLog(rows)).facts
    assert (facts.new_labels, facts.unknown_labels) == ((), {"refund": 7})
    known = write(MadeLog(rows), named_labels=("refund", "even")).facts
    assert (known.new_labels, known.unknown_labels) == (("refund", "even"), {})


def test_a_forgotten_decision_has_no_purpose(write: Write) -> None:
    rows = decisions(TEXTS, ["good"] * 400)
    rows[3] |= {"unit": None}
    rows[5] |= {"gate_score": None}
    purposes = write(MadeLog(rows)).table["purpose"]
    assert pc.indices_nonzero(purposes.is_null()).to_pylist() == [3, 5]


def test_fully_escalated_window_is_known_and_explains_itself(write: Write) -> None:
    """Promise: while a stopped champion waits, every answer of the large model counts fully."""
    log = MadeLog(
        [row | {"route": "large", "probability": 1.0} for row in decisions(TEXTS, ["good"] * 400, share=0.05)]
    )
    versions = pa.array(["made/1"] * 399 + ["made/2"])  # the last decision is that of a challenger that was stopped
    log.table = log.table.set_column(log.table.column_names.index("model_version"), "model_version", versions)
    log.refuted_upto, log.e_value = 0, 20.0
    facts = write(log).facts
    assert (facts.share_floor, facts.signs) == (1.0, ("its certificate is refuted", "new classes"))
    assert write().facts.signs == ()


def test_what_a_certificate_has_to_know_of_the_window(write: Write) -> None:
    rows = decisions(TEXTS, ["good"] * 400)
    rows[7]["audit_share"] = rows[7]["probability"] = 0.25
    window = write(MadeLog(rows))
    assert (window.facts.share_floor, window.facts.num_decisions, window.facts.num_missing) == (0.25, 400, 0)
    certified, trained = (set(window.of_purpose(name)["unit"].to_pylist()) for name in ("certify", "train"))
    assert certified
    assert not certified & trained


def made(lost: int = 0, **change: Any) -> MadeLog:
    """A log in which one decision has a fault."""
    rows = decisions(TEXTS, ["good"] * 400)
    rows[9] |= change
    return MadeLog(rows, lost)


@pytest.mark.parametrize(
    ("log", "change", "says"),
    [
        (made(lost=1), {}, "1 decisions are missing"),
        (MadeLog([]), {}, "no decision"),
        (made(audit_share=0.0), {}, "nothing was audited when 1 decisions"),
        (made(large_identity="large-2"), {}, "another large model gave answers: large-2"),
    ],
)
def test_such_a_window_is_refused(write: Write, log: MadeLog | None, change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says) as refused:
        write(log, **change)
    assert "\n" not in str(refused.value)


def test_decisions_from_the_future_are_refused(write: Write) -> None:
    """They would put off the day on which the certificate expires."""
    ahead = decisions(["a film"], ["good"], answered_at=datetime.now(UTC) + timedelta(days=2))
    with pytest.raises(DataError, match="is in the future"):
        write(MadeLog(ahead))


@pytest.mark.parametrize(("rate", "refuted"), [(0.0, False), (0.01, False), (0.2, True)])
def test_kept_disagreement_refutes_the_champion(rate: float, refuted: bool) -> None:
    """Promise: by its audits, weighted; and by what it would have kept, where it was stopped and all was escalated."""
    for share, stopped in ((0.5, False), (1.0, True)):
        window = made_window(3000, rate=rate, share=share, small_label=["yes"] * 3000, gate_score=np.ones(3000))
        if stopped:
            every = pa.array(["large"] * 3000), pa.array(np.ones(3000))
            for name, column in zip(("route", "probability"), every, strict=True):
                window = window.set_column(window.column_names.index(name), name, column)
        low, high = judged_of(window).champion_loss(Policy(decision=KEEP_ALL), share, 0.1)
        assert (low > 0.02) == refuted
        assert low <= rate <= high
    assert judged_of(window).champion_loss(Policy(), 1.0, 0.1)[0] == 0.0  # a policy that keeps nothing loses nothing


def test_questions_are_answered_again_from_the_longer_list() -> None:
    """Promise: what the large model was asked is answered anew from the longer list."""
    window = made_window(20, rate=0.5)
    window = window.append_column("large_probabilities", pa.nulls(20, pa.list_(pa.float32())))
    asked = window.filter(window["large_label"].is_valid())
    answers = Answers(
        np.array([2, -1, -1] + [0] * (len(asked) - 3)),
        np.full((len(asked), 3), np.nan),
        np.ones(len(asked)),
        np.array([False, False, True] + [False] * (len(asked) - 3)),
    )
    given = answers.table(pa.table({"id": row_ids(asked), "split": ["train"] * len(asked)}))
    after = answered_anew(window, given, ("yes", "no", "new"))
    again = after.filter(window["large_label"].is_valid())["large_label"].to_pylist()
    assert again[:4] == ["new", "", None, "yes"]
    assert after.filter(window["large_label"].is_null())["large_label"].null_count == 20 - len(asked)


def test_fitted_head_waits_for_labels_unless_nothing_is_kept(write: Write) -> None:
    """Promise: labels gather while something is kept; the turn after a repair does not wait for a rare label."""
    rows = decisions(TEXTS, ["good"] * 400)
    for row in rows[:40]:
        row["label"] = "odd"
    rows[50]["label"] = "rare"
    named: dict[str, Any] = {"fitted": True, "named_labels": ("odd", "rare")}
    facts = write(MadeLog(rows), **named).facts
    assert (facts.new_labels, facts.untaught_labels) == (("odd",), ("rare",))
    alone = named | {"named_labels": ("rare",)}
    with pytest.raises(DataError, match="needs 5 labelled items of train units per label; so far 'rare'"):
        write(MadeLog(rows), **alone)
    assert write(MadeLog(rows), **alone, cut=np.inf).facts.untaught_labels == ("rare",)
