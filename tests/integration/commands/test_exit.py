"""What a stage's processes raise ends a command in one line, as its own errors do."""

from typing import NoReturn

import pytest
import ray
import ray.data
import typer

from jobs.exit import reported
from kcm.errors import ArtefactError

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]


def fail() -> NoReturn:
    raise ArtefactError("the disk is full", where="/storage", hint="Free some space")


class FailingActor:
    """What a stage sends rows through."""

    def __call__(self, batch: dict[str, object]) -> NoReturn:
        fail()


def test_an_error_in_another_process_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Ray wraps what a task raised, and Ray Data keeps nothing but its text."""
    line = "error: the disk is full (/storage). Free some space\n"
    with pytest.raises(typer.Exit) as ended, reported(None, debug=False):
        ray.get(ray.remote(fail).remote())
    assert (ended.value.exit_code, capsys.readouterr().err) == (2, line)
    with pytest.raises(typer.Exit) as ended, reported(None, debug=False):
        ray.data.range(4).map_batches(FailingActor, concurrency=1).materialize()
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err.endswith(line)
