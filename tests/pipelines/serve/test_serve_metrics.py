"""What is counted, and what the dashboard shows of it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.serve.metrics import ServeMetrics

DASHBOARD = Path(__file__).parents[3] / "deploy" / "helm" / "kcm" / "dashboard.json"


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def test_every_metric_is_on_the_dashboard_and_nothing_else(dashboard: dict[str, Any]) -> None:
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = {
        re.sub(r"_(bucket|sum|count)$", "", name) for query in queries for name in re.findall(r"ray_(kcm_\w+)", query)
    }
    assert shown == ServeMetrics().names
