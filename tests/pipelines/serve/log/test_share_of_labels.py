"""Promise: callers who lie about thousands of items move window, bounds and alarm by a share of the labels each."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from kcm.inputs.content import Content
from kcm.tasks.units import unit_digest
from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin, utc_now
from pipelines.serve.log.monitor import Monitor
from pipelines.serve.log.tables import DECISIONS, FEEDBACK, SCHEMA, counted_labels
from pipelines.serve.log.window import LogReader
from pipelines.serve.log.writer import LogWriter
from tests.kcm.bundle.test_bundle import certificate
from tests.pipelines.serve.stubs import NoMetrics

SHARE, LIES = 0.2, 120
TRUTHS = {"ann": 30, "bob": 10, "carl": 30, "dora": 30, "fay": 30}
LIARS = ("eve", "mallory")
CAP = 43  # of 10 + 4 * 30 + 2 * 43 labels it is at most a fifth, and 44 is more


def answered(log: DecisionLog, caller: str, number: int, label: str) -> None:
    """Kept and audited items of a caller whose large answer is `good`, and the caller's labels of them."""
    log.add_decisions(
        [
            LoggedDecision(
                Origin(f"{caller}{item}", caller),
                0,
                "films/1",
                "small",
                1.0,
                drawn=True,
                small_label="bad",
                gate_score=1.0,
                unit=unit_digest(Content("the same text"), f"group {item}"),  # cloned under another group each
            )
            for item in range(number)
        ]
    )
    for item in range(number):
        log.finish_audits(f"{caller}{item}", {0: "good"})
        log.add_feedback(f"{caller}{item}", caller, [Feedback(0, label)])


@pytest.fixture
def url(any_url: str) -> str:
    """A log in which two callers say of each item that the large model is right, others that the small one is."""
    with closing(DecisionLog(any_url, 30.0, "films")) as log:
        for caller, number in TRUTHS.items():
            answered(log, caller, number, "bad")
        for caller in LIARS:
            answered(log, caller, LIES, "good")
    return any_url


def counted(url: str, after: int, upto: int, max_share: float = SHARE) -> Counter[str]:
    with LogReader(url, "films") as reader:
        window = reader.window(after, upto, max_share)
    return Counter(label for label in window["label"].to_pylist() if label)


def test_windows_and_bounds_cap_each_callers_share(url: str) -> None:
    """Promise: of two callers with many labels each counts by at most the share, in each window and each bound."""
    number = sum(TRUTHS.values())
    assert counted(url, 0, 1000) == {"bad": number, "good": 2 * CAP}
    assert counted(url, 0, 1000, 1.0) == {"bad": number, "good": 2 * LIES}
    with LogReader(url, "films") as reader:
        assert reader.uncounted(0, 1000, SHARE) == 2 * (LIES - CAP)

    assert counted(url, 0, number + LIES) == {"bad": number, "good": 32}  # 32 of 162
    assert counted(url, number, number + LIES) == {"good": LIES}  # nobody else gave a label
    assert counted(url, 0, 70) == {}  # three callers cannot have a fifth each

    with closing(DecisionLog(url, 30.0, "films", SHARE)) as log:
        known = Counter[Any]()
        for tally in log.tallies("films/1"):
            known[tally.large_right] += tally.number
        assert known == {False: number, True: 2 * CAP, None: 2 * (LIES - CAP)}
        lost = sum(event.lost for event in log.events("films/1", 0, 1000, label_free=False))
        assert lost == 2 * CAP


def labels_that_count(numbers: Sequence[int], max_share: float) -> list[int]:
    """How many labels of each caller count, by a log in which caller i gives `numbers[i]` of them."""
    engine = sa.create_engine("sqlite://")
    keys = [(f"{item}-{caller}", str(caller)) for caller, own in enumerate(numbers) for item in range(own)]
    own = {"item": 0, "route": "small", "audit_share": 0.0, "probability": 1.0, "writer": "w"}
    own |= {"application": "films", "model_version": "1", "answered_at": utc_now()}
    label = {"item": 0, "label": "good", "received_at": utc_now()}
    with engine.begin() as connection:
        SCHEMA.create_all(connection)
        connection.execute(DECISIONS.insert(), [own | {"request_id": key, "caller": who} for key, who in keys])
        connection.execute(FEEDBACK.insert(), [label | {"request_id": key, "caller": who} for key, who in keys])
        rows = connection.execute(sa.select(counted_labels(connection, sa.true(), max_share)))
        of = Counter(row.request_id.partition("-")[2] for row in rows)
    engine.dispose()
    return [of[str(caller)] for caller in range(len(numbers))]


@given(
    numbers=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    max_share=st.sampled_from([0.05, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.7, 0.99, 1.0]),
)
def test_share_holds_for_any_number_of_callers(numbers: list[int], max_share: float) -> None:
    """Promise: the cap is the largest with which nobody has more than the share; a caller alone has no limit."""

    def holds(cap: int) -> bool:
        parts = [min(own, cap) for own in numbers]
        return max(parts) <= max_share * sum(parts) + 1e-6

    found = labels_that_count(numbers, max_share)
    largest = max(cap for cap in range(max(numbers) + 1) if holds(cap))
    cap = max(numbers) if len(numbers) == 1 else largest
    assert found == [min(own, cap) for own in numbers]


@pytest.mark.parametrize(("max_share", "refuted"), [(SHARE, False), (1.0, True)])
async def test_the_alarm_of_a_certificate_is_not_theirs_to_give(any_url: str, max_share: float, refuted: bool) -> None:
    with closing(DecisionLog(any_url, 30.0, "films")) as log:
        for caller, number in {"ann": 30, "bob": 30, "carl": 30, "dora": 30}.items():
            answered(log, caller, number, "bad")
        answered(log, "eve", LIES, "good")
    writer = LogWriter(FeedbackConfig(max_share_per_caller=max_share, timeout_s=10.0), any_url, application="films")
    promise = certificate().model_copy(update={"epsilon": 0.3, "method": "regret"})
    nothing: Any = NoMetrics()
    monitor = Monitor(writer, "films/1", promise, nothing)
    bounds = await monitor.check()
    writer.close()
    assert bounds is not None
    assert bounds.alarm == refuted
