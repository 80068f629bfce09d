"""What `kcm label` shows while it buys."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from jobs.views.label import closing, progress_line
from kcm.labelling.label import label


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ((50, None, 0.0, 0.0, None), "50 bought"),
        ((50, None, 0.5, 0.01, None), "50 bought, $0.50 spent"),
        ((50, 400, 0.5, 0.01, 0.95), "50 of about 400 bought, $0.50 of about $4.00, forecast: 95.0% proved"),
        ((410, 400, 4.1, 0.01, 0.932), "410 of about 410 bought, $4.10 of about $4.10, forecast: 93.2% proved"),
        ((50, 400, 0.0, 0.0, None, 1500), "50 of about 400 bought, 1,500 by the cheaper model"),
    ],
    ids=["pilot", "pilot with a price", "plan", "more than planned", "cheaper model"],
)
def test_progress_names_answers_money_and_promise(state: tuple[Any, ...], line: str) -> None:
    assert progress_line(*state) == line


@pytest.mark.parametrize(
    ("answer", "line"),
    [("a", "answered 'a' to all 30 texts"), ("ab", "never answered 'c'"), ("abc", "30 labels are the LLM's own")],
)
def test_labels_the_llm_never_gives_are_named(tmp_path: Path, answer: str, line: str) -> None:
    """A label list or prompt that does not fit shows in one line at the end."""
    frame = pd.DataFrame({"text": [f"number {n} of some texts" for n in range(30)]})
    labelled = label(
        frame,
        labels=["a", "b", "c"],
        llm=lambda texts: [answer[int(text.split()[1]) % len(answer)] for text in texts],
        encoder="words",
        ledger=tmp_path,
    )
    assert line in closing(labelled)[-1 if len(answer) < 3 else 0]
