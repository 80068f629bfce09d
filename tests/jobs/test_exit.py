"""A command exits with one line, an exit code and a JSON file, whatever it raises."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import typer

from jobs.exit import reported
from kcm.errors import DataError


def end(error: BaseException, json_file: Path | None = None, debug: bool = False) -> int:
    """The exit code of a command whose body raises `error`."""
    with pytest.raises(typer.Exit) as ended, reported(json_file, debug):
        raise error
    return ended.value.exit_code


def test_a_result_is_written_as_json(tmp_path: Path) -> None:
    with reported(tmp_path / "new" / "out.json", debug=False) as result:
        result["path"] = Path("/somewhere")
    assert json.loads((tmp_path / "new" / "out.json").read_text()) == {"path": "/somewhere"}


def test_a_killed_command_leaves_a_file_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text('{"answer": "of an earlier run"}')
    with reported(tmp_path / "out.json", debug=False):
        assert json.loads((tmp_path / "out.json").read_text()) == {"error": "the command did not finish"}


def test_what_a_person_can_mend_is_one_line_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = DataError("2 rows have\nno text", where="rows.csv", hint="Fill them in")
    assert end(error, tmp_path / "out.json") == 2
    line = "2 rows have no text (rows.csv). Fill them in"
    assert capsys.readouterr().err == f"error: {line}\n"
    assert json.loads((tmp_path / "out.json").read_text()) == {"error": line}


def test_error_of_a_stranger_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(DataError("no column 'a\x1b[2K\ud800b'")) == 2
    assert capsys.readouterr().err == "error: no column 'a[2Kb'\n"


def test_unexpected_error_names_itself_and_debug(capsys: pytest.CaptureFixture[str]) -> None:
    """Promise: an unexpected error names itself and the way to its traceback."""
    assert end(ZeroDivisionError("division by zero")) == 1
    assert capsys.readouterr().err == (
        "error: unexpected ZeroDivisionError: division by zero (--debug for the traceback)\n"
    )


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(0), SystemExit(15)])
def test_an_interruption_says_how_to_go_on(interruption: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    assert end(interruption) == 130
    assert capsys.readouterr().err == "interrupted; start again\n"


def test_termination_exits_like_ctrl_c_with_its_own_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Promise: a termination ends as ctrl c does with an exit code of its own."""
    cleaned_up = []
    handler = signal.getsignal(signal.SIGTERM)

    def work() -> NoReturn:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the body went on")
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # an impatient sender
            cleaned_up.append(True)

    with pytest.raises(typer.Exit) as ended, reported(tmp_path / "out.json", debug=False):
        work()
    assert (ended.value.exit_code, cleaned_up) == (143, [True])
    assert capsys.readouterr().err == "interrupted; start again\n"
    assert json.loads((tmp_path / "out.json").read_text()) == {"error": "interrupted; start again"}
    assert signal.getsignal(signal.SIGTERM) is handler


WAITING_FOR_RAY = """
import time
from pathlib import Path
import ray
import typer
from jobs.exit import reported
from pipelines.cluster.connection import connected
from pipelines.cluster.config import ClusterConfig

def wait(json_file: Path) -> None:
    with reported(json_file, debug=False), connected(ClusterConfig(num_cpus=1)):
        work = ray.remote(lambda: time.sleep(600)).remote()
        print("waiting", flush=True)
        ray.get(work)

typer.run(wait)
"""


@pytest.mark.slow
def test_a_termination_while_ray_works_ends_in_one_line(tmp_path: Path) -> None:
    """Promise: a cluster manager's SIGTERM ends a command as Ctrl-C does; Ray's own handler would abort it."""
    command = [sys.executable, "-c", WAITING_FOR_RAY, str(tmp_path / "out.json")]
    ours = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with subprocess.Popen(command, env=ours, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == "waiting\n"
        process.terminate()
        _, error = process.communicate(timeout=240)
    assert process.returncode == 143
    assert error == "interrupted; start again\n"
    assert json.loads((tmp_path / "out.json").read_text()) == {"error": "interrupted; start again"}


def test_unwritable_json_file_is_found_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Promise: a json file that cannot be written is found before the work."""
    (tmp_path / "file").touch()
    with pytest.raises(typer.Exit) as ended, reported(tmp_path / "file" / "out.json", debug=False):
        pytest.fail("the body ran")
    assert ended.value.exit_code == 2
    assert "cannot write the JSON result" in capsys.readouterr().err
