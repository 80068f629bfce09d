"""Every check is one line, whatever the others find, and a fault is an exit of its own."""

from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from typer.testing import CliRunner

from jobs.commands.doctor import doctor
from jobs.options import command
from jobs.work import doctor as module
from jobs.work.doctor import checks, examine
from kcm.config import parse_config
from kcm.errors import KcmError
from pipelines.config import RunConfig
from pipelines.nodes import NodeReport, versions_here

ENCODED = {"adapter": "classifier", "encoder": {"model": "/no/such/model"}}
VECTORS = {"kind": "precomputed", "columns": ["f_*"]}


def config(tmp_path: Path, **more: object) -> RunConfig:
    values = {
        "name": "fit",
        "storage_path": str(tmp_path / "storage"),
        "assets_path": str(tmp_path),
        "tasks": {"source": {"kind": "files", "path": str(tmp_path / "rows.csv")}, "num_tasks": 1},
        "encoder": VECTORS,
        "large": {"adapter": "classifier", "encoder": VECTORS},
    }
    return parse_config(RunConfig, values | more)


def examined(config: RunConfig) -> tuple[dict[str, list[str]], list[str]]:
    lines: list[str] = []
    with ExitStack() as stack:
        return examine(checks(config, stack), lines.append), lines


def test_a_run_on_this_machine_is_fit(tmp_path: Path) -> None:
    found, lines = examined(config(tmp_path))
    assert found["faults"] == []
    assert found["passed"] == ["stages", "storage", "versions", "clocks", "disks", "models", "log", "MLflow", "room"]
    assert all(line.startswith("ok ") for line in lines)
    assert not (tmp_path / "storage" / "feedback.db").exists()


def test_faults_name_their_fix_and_hide_no_other(tmp_path: Path) -> None:
    """Promise: faults are named with what helps and do not hide each other."""
    silent = {"feedback": {"url": "postgresql+psycopg://kcm@127.0.0.1:1/kcm"}}
    found, lines = examined(
        config(tmp_path, serve=silent, large=ENCODED, encoder=ENCODED["encoder"], cluster={"num_workers": 20})
    )
    assert found["faults"] == ["models", "log", "room"]
    (models,) = (line for line in lines if line.startswith("FAULT models"))
    assert "no such model folder '/no/such/model'" in models
    assert "Give a folder that exists" in models


def test_clock_skew_and_full_disk_are_faults_of_a_node() -> None:
    """Promise: a clock that is off and a full disk are faults of their node."""
    here = versions_here()
    reports = [NodeReport("w1", here, 0.2, 20.0, None, {}), NodeReport("w2", here, -600.0, 0.1, None, {})]
    with pytest.raises(KcmError, match=r"its clock differs from this one by -600 s \(w2\)"):
        module._clocks(reports)
    with pytest.raises(KcmError, match=r"0\.1 GiB are free .* \(w2\)"):
        module._disks(reports)


def test_a_fault_gives_a_non_zero_exit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise KcmError("it is broken", hint="Mend it")

    file = tmp_path / "run.yaml"
    file.write_text("name: x")
    monkeypatch.setattr("jobs.options.load", lambda *_: SimpleNamespace(name="x"))
    monkeypatch.setattr(module, "checks", lambda *_: iter([("storage", lambda: "fine"), ("log", fail)]))
    app = typer.Typer()
    app.command()(command(doctor))
    ended = CliRunner().invoke(app, [str(file)])
    assert ended.exit_code == 2
    assert ended.output.splitlines()[:2] == ["ok    storage  fine", "FAULT log      it is broken. Mend it"]
    assert "checks failed for" in ended.output
