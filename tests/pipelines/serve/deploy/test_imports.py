"""What `kcm serve` and its replicas must not import: a person waits for each of their processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

NEVER = {"mlflow", "ray.data", "ray.train", "ray.tune", "scipy.optimize", "scipy.stats", "transformers"}


@pytest.mark.parametrize(
    ("module", "unneeded"),
    [
        ("jobs.commands.serving.start", {"ray.serve", "pandas", "sqlalchemy", "torch"}),  # before Ray is started
        ("jobs.commands.serving.serving", {"httpx", "sqlalchemy", "torch"}),
        ("pipelines.serve.deploy.app", {"httpx", "sqlalchemy", "torch"}),  # what builds the application
        ("pipelines.serve.cascade.models.large", {"httpx", "sqlalchemy", "torch"}),
        ("pipelines.serve.deploy.replica", {"alembic", "httpx"}),
    ],
)
def test_a_process_starts_without_what_it_does_not_need(module: str, unneeded: set[str]) -> None:
    script = f"import {module}, sys; print(sorted({NEVER | unneeded!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_log_of_a_run_is_recognised_without_a_database() -> None:
    script = (
        "from pipelines.serve.config import FeedbackConfig; import sys;"
        " FeedbackConfig(url='sqlite:////storage/feedback.db'); print('sqlalchemy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "False\n"
