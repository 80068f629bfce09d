"""What `kcm label` shows while it buys."""

import pytest

from jobs.views.label import progress_line


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
def test_progress_names_answers_money_and_promise(state: tuple[int, int | None, float, float], line: str) -> None:
    assert progress_line(*state) == line
