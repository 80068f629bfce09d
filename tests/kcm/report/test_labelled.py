"""The page of a labelled table: its numbers are those of the table, and nothing in it is more than text."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kcm.labelling.guarantees import ClassPromise
from kcm.labelling.label import LabelledTable, label
from kcm.report.labelled import NUM_SHOWN, LabelPage, render_labelled

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
def page(found: LabelledTable) -> LabelPage:
    return LabelPage.of(found, "tickets.csv", "tickets.bundle")


def test_rows_by_label_are_the_table(found: LabelledTable, page: LabelPage) -> None:
    """Rows by label and source are those of the delivered table."""
    counts = found.frame.groupby(["label", "label_source"]).size()
    for each in page.labels:
        assert each.small == counts.get((each.label, "small"), 0)
        assert each.llm == counts.get((each.label, "llm"), 0)
    assert sum(each.rows for each in page.labels) == len(found.frame)


def test_kept_rows_are_the_small_models(found: LabelledTable, page: LabelPage) -> None:
    """Rows to look at are the table's own rows that the small model labelled, with its probability."""
    assert len(page.kept) == NUM_SHOWN < page.num_kept
    for row in page.kept:
        there = found.frame.iloc[row.row - 1]
        assert (there["label_source"], there["label"]) == ("small", row.small)
        assert there["label_probability"] == pytest.approx(row.probability)


def test_differing_rows_were_not_taught(found: LabelledTable, page: LabelPage) -> None:
    """Rows that differ have the LLM's answer, which the small model had not seen when it guessed."""
    assert 0 < page.num_differing < page.num_compared
    taught = set(np.flatnonzero(found.result.taught_U))
    for row in page.differing:
        there = found.frame.iloc[row.row - 1]
        assert (there["label_source"], there["label"]) == ("llm", row.llm)
        assert row.small != row.llm
        assert found.texts.unit_N[row.row - 1] not in taught
    draw = found.certificate.draws[0]
    assert page.num_compared >= draw.drawn
    assert page.num_differing >= draw.wrong


def test_resumed_job_has_the_same_page(folder: Path, page: LabelPage) -> None:
    """A job that continues its draw shows the curves that ranked the rows, though it never trained."""
    again = labelled(folder)
    assert again.side.judge is None
    shown = LabelPage.of(again, "tickets.csv", "tickets.bundle")
    assert render_labelled(shown) == render_labelled(page)
    assert shown.curves


def test_page_asks_no_network_and_texts_stay_texts(page: LabelPage, assert_safe: Any) -> None:
    """Hostile texts and labels are text; the only script is the one that the policy names; links stay on the page."""
    assert_safe(render_labelled(replace(page, name=HOSTILE, bundle=HOSTILE)))


def test_page_says_promise_and_limits(found: LabelledTable, page: LabelPage) -> None:
    """The promise stands first, and what it does not cover last; without prices there is no money."""
    html = render_labelled(page)
    assert found.certificate.sentence in html
    assert "The guarantee covers this table and no other rows." in html
    assert "Paid" not in html
    assert "$0.25" in render_labelled(replace(page, saved=0.25, cost=0.5))


def test_missed_target_is_a_warning_with_a_next_step(page: LabelPage) -> None:
    """An unproved target is a warning, and the page says how to reach it."""
    assert "Warning" not in render_labelled(page)
    html = render_labelled(replace(page, certificate=page.certificate.model_copy(update={"certified": False})))
    assert "<b>Warning:</b> The target is not proved" in html
    assert "a higher <code>--max-cost</code>" in html


def test_promises_about_labels_are_the_key_figures(page: LabelPage) -> None:
    """Without a target the headline points at the promises about labels."""
    promise = ClassPromise(kind="precision", label="spam", asked=0.9, proved=0.93, holds=True)
    certificate = page.certificate.model_copy(update={"target": None, "guarantees": (promise,)})
    html = render_labelled(replace(page, certificate=certificate))
    assert "probability each, the figures below hold for the 900 labels." in html
    assert "Precision of spam, at least" in html
    assert "93.00%" in html
