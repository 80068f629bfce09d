"""The run that goes on from a labelled table, as far as it needs no server."""

from collections import Counter

import pandas as pd
import pytest

from jobs.work.labelled_run import bought_rows
from kcm.errors import ConfigError
from kcm.labelling.label import LabelledTable, label


def labelled(names: list[str], rare: int = 20) -> LabelledTable:
    """300 texts on two subjects, and some on a rare one."""
    words = ["good", "bad"] * 150 + ["odd"] * rare
    frame = pd.DataFrame({"text": [f"{word} film {n}" for n, word in enumerate(words)]})
    said = {"good": "positive", "bad": "negative", "odd": "neither"}
    return label(frame, labels=names, llm=lambda texts: [said[text.split()[0]] for text in texts], encoder="words")


def test_bought_answers_are_rows_with_a_split() -> None:
    """Rows are what was bought; a tenth of every label measures, and every label trains."""
    found = labelled(["positive", "negative", "neither"])
    rows = bought_rows(found)
    bought = found.frame[found.frame["label_source"] == "llm"]
    assert dict(zip(rows["text"], rows["label"], strict=True)) == dict(
        zip(bought["text"], bought["label"], strict=True)
    )
    counts, measured = Counter(rows["label"]), Counter(rows["label"][rows["split"] == "test"])
    assert set(rows["label"][rows["split"] == "train"]) == set(counts)
    for name, count in counts.items():
        assert count / 10 <= measured[name] < count / 10 + 1 or count < 3


def test_label_without_an_answer_makes_no_run() -> None:
    """Without it in the list the large model would be asked another question."""
    with pytest.raises(ConfigError, match="no bought answer is 'neither'"):
        bought_rows(labelled(["positive", "negative", "neither"], rare=0))
