"""The page of a labelled table: its numbers are those of the table, and nothing in it is more than text."""

import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kcm.labelling.guarantees import ClassPromise
from kcm.labelling.label import LabelledTable, label
from kcm.large.base import Estimate
from kcm.report.labelled import NUM_SHOWN, label_counts, render_labelled

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
TOPICS = {"good": "pos", "bad": "neg", "odd": HOSTILE}


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    words = rng.choice(list(TOPICS), 900)
    texts = [f"{word} {HOSTILE if n % 3 else ''} thing {n}" for n, word in enumerate(words)]
    said = [TOPICS[word] if rng.random() > 0.2 else "neg" for word in words]
    return pd.DataFrame({"text": texts, "said": said})


def labelled(folder: Path) -> LabelledTable:
    return label(frame(), answers="said", encoder="words", target=0.75, text="text", ledger=folder / "ledger")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("user")
        patch.setenv("XDG_DATA_HOME", str(path))
        yield path


@pytest.fixture(scope="module")
def found(folder: Path) -> LabelledTable:
    """A finished job; the LLM contradicts the words in some of the rows."""
    return labelled(folder)


@pytest.fixture(scope="module")
def page(found: LabelledTable) -> str:
    return render_labelled(found, "tickets.csv", "tickets.bundle")


def test_rows_by_label_are_the_table(found: LabelledTable) -> None:
    """Rows by label and source are those of the delivered table."""
    counts, labels = found.frame.groupby(["label", "label_source"]).size(), label_counts(found)
    for row in labels:
        assert row.small == counts.get((row.label, "small"), 0)
        assert row.llm == counts.get((row.label, "llm"), 0)
    assert sum(row.rows for row in labels) == len(found.frame)


def test_share_of_each_label_has_an_interval(found: LabelledTable) -> None:
    """What the LLM would have said to every row lies inside, since the certificate holds here."""
    said = frame()["said"]
    assert (said != found.frame["label"]).sum() <= found.certificate.most_differ
    for row in label_counts(found):
        assert row.fewest <= (said == row.label).sum() <= row.most
        assert row.rows - row.fewest <= min(row.small, found.certificate.most_differ)
        assert row.most - row.rows <= found.certificate.most_differ


ROW = re.compile(
    r'<tr><th scope="row">(\d+)</th><td><bdi>[^<]*</bdi></td><td class="left"><bdi>([^<]*)</bdi></td><td>([\d.]+)%</td>'
    r'(?:<td class="left"><bdi>([^<]*)</bdi></td>)?</tr>'
)


def test_shown_rows_are_the_tables(found: LabelledTable, page: str) -> None:
    """Kept rows have the small model's label and probability; differing ones the LLM's, which did not teach it."""
    rows = [[unescape(cell) for cell in match] for match in ROW.findall(page)]
    kept, differing = [row for row in rows if not row[3]], [row for row in rows if row[3]]
    assert len(kept) == NUM_SHOWN
    assert differing
    taught = set(np.flatnonzero(found.result.taught_U))
    for number, small, probability, llm in rows:
        row = found.frame.iloc[int(number) - 1]
        assert (row["label_source"], row["label"]) == (("llm", llm) if llm else ("small", small))
        if llm:
            assert small != llm
            assert found.texts.unit_N[int(number) - 1] not in taught
        else:
            assert row["label_probability"] == pytest.approx(float(probability) / 100, abs=6e-4)


def test_resumed_job_has_the_same_page(folder: Path, page: str) -> None:
    """A job that continues its draw shows the curves that ranked the rows, though it never trained."""
    again = labelled(folder)
    assert again.side.judge is None
    assert render_labelled(again, "tickets.csv", "tickets.bundle") == page
    assert "<svg" in page


def test_page_asks_no_network_and_texts_stay_texts(found: LabelledTable, assert_safe: Any) -> None:
    """Hostile texts and labels are text; the only script is the one that the policy names; links stay on the page."""
    assert_safe(render_labelled(found, HOSTILE, HOSTILE))


def test_page_says_promise_and_limits(found: LabelledTable, page: str) -> None:
    """The promise stands first, and what it does not cover last; without prices there is no money."""
    assert found.certificate.sentence in page
    assert "The guarantee covers this table and no other rows." in page
    assert "Paid" not in page
    assert "Paid" in render_labelled(replace(found, estimate=Estimate(calls=900, currency=0.9)), "tickets.csv")


def test_missed_target_is_a_warning_with_a_next_step(found: LabelledTable, page: str) -> None:
    """An unproved target is a warning, and the page says how to reach it."""
    assert "Warning" not in page
    missed = found.certificate.model_copy(update={"certified": False})
    html = render_labelled(replace(found, certificate=missed), "tickets.csv")
    assert "<b>Warning:</b> The target is not proved" in html
    assert "a higher <code>--max-cost</code>" in html


def test_promises_about_labels_are_the_key_figures(found: LabelledTable) -> None:
    """Without a target the headline points at the promises about labels."""
    promise = ClassPromise(kind="precision", label="spam", asked=0.9, proved=0.93, holds=True)
    certificate = found.certificate.model_copy(update={"target": None, "guarantees": (promise,)})
    html = render_labelled(replace(found, certificate=certificate), "tickets.csv")
    assert "probability each, the figures below hold for the 900 labels." in html
    assert "Precision of spam, at least" in html
    assert "93.00%" in html
