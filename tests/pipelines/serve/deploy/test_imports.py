"""What `kcm serve` and its replicas must not import: a person waits for each of their processes."""

from __future__ import annotations

import subprocess
import sys

NEVER = {"mlflow", "ray.data", "ray.train", "ray.tune", "scipy.optimize", "scipy.stats", "transformers"}
# Imported in this order by one process: what a module does not need, none before it may have brought either.
UNNEEDED = {
    "jobs.commands.serving.start": {"ray.serve", "pandas", "sqlalchemy", "torch"},  # before Ray is started
    "jobs.commands.serving.serving": {"httpx", "sqlalchemy", "torch"},
    "pipelines.serve.deploy.app": {"httpx", "sqlalchemy", "torch"},  # what builds the application
    "pipelines.serve.cascade.models.large": {"httpx", "sqlalchemy", "torch"},
    "pipelines.serve.deploy.replica": {"alembic", "httpx"},
}


def printed_by(script: str) -> list[str]:
    """What a process of its own prints, one start of Python and of Ray for all lines."""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def test_a_process_starts_without_what_it_does_not_need() -> None:
    steps = [
        f"import {module}; print({module!r}, sorted({NEVER | unneeded!r} & set(sys.modules)))"
        for module, unneeded in UNNEEDED.items()
    ]
    assert printed_by("\n".join(["import sys", *steps])) == [f"{module} []" for module in UNNEEDED]


def test_the_log_of_a_run_is_recognised_without_a_database() -> None:
    script = (
        "from pipelines.serve.config import FeedbackConfig; import sys;"
        " FeedbackConfig(url='sqlite:////storage/feedback.db'); print('sqlalchemy' in sys.modules)"
    )
    assert printed_by(script) == ["False"]
