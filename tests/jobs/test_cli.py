"""Every command ends as its help promises, and bad input is one line on stderr."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner, Result

from jobs.cli import COMMANDS, app, load
from jobs.commands.run import StageName
from pipelines.config import RunConfig

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"
REVIEWS = str(CONFIGS / "reviews.yaml")


def kcm(*words: str) -> Result:
    return CliRunner().invoke(app, words)


class FakeRun:
    """Stands in for the pipeline: keeps what it was asked for."""

    def __init__(self, result: dict[str, Any] | Exception) -> None:
        self.result = result

    def __call__(
        self, config: Any, until: str | None = None, reporter: Any = None, promote: bool | None = None, **_: Any
    ) -> dict[str, Any]:
        self.config, self.until, self.promote = config, until, promote
        if isinstance(self.result, Exception):
            raise self.result
        return dict(self.result)


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    fake = FakeRun({"name": "reviews"})
    monkeypatch.setattr("jobs.work.run.run_stages", fake)
    return fake


def test_the_list_of_commands_has_their_help_and_loads_none() -> None:
    heavy = {"mlflow", "numpy", "ray", "torch", "transformers"}
    script = f"import jobs.cli, sys; jobs.cli.app(['-h'], standalone_mode=False); print({heavy} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-1] == "set()"
    assert "..." not in shown.partition("Commands:")[2]  # no summary is cut
    for name in COMMANDS:
        help_text = load(name).get_short_help_str(30).removesuffix("...")
        assert re.search(rf"^  {name} +{re.escape(help_text)}", shown, re.M), name


@pytest.fixture
def predictions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, dict[str, Any]]]:
    """Paths and options of every prediction; none is made. The working folder has rows."""
    asked: list[tuple[Any, dict[str, Any]]] = []

    def predict(*paths: object, **options: Any) -> dict[str, float]:
        asked.append((paths, options))
        return {"small": 3, "large": 1, "outside_promise": 0.0}

    monkeypatch.setattr("pipelines.batch.predict.predict", predict)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("text\na\n")
    return asked


@pytest.fixture
def champion(monkeypatch: pytest.MonkeyPatch, registry: RunConfig, tmp_path: Path) -> str:
    """What is written in the bundle of a champion that is found as Python finds it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.tracking.uri_in(registry.storage_folder))
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "cache"))
    return "second"


@pytest.mark.parametrize("named", ["models:/reviews@champion", "models:/reviews/2"])
def test_every_command_takes_a_registered_model_alike(
    named: str, champion: str, predictions: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    explained: list[Path] = []
    monkeypatch.setattr("jobs.work.explain.explain_bundle", lambda bundle, *_: explained.append(bundle) or {})
    for command in (["predict", named, "rows.csv", "--output", "answers.csv"], ["explain", named]):
        shown = kcm(*command)
        assert shown.exit_code == 0, shown.stderr
    bundles = [predictions[0][0][0], *explained]
    assert [(bundle / "bundle.json").read_text() for bundle in bundles] == [champion, champion]


def test_a_registered_model_is_served_without_a_configuration(
    champion: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written: list[Any] = []
    monkeypatch.setattr("jobs.work.service.require_servable", lambda *_: None)
    monkeypatch.setattr("jobs.work.service.void_release", lambda *_: "the encoder runs elsewhere")
    monkeypatch.setattr("jobs.work.service.write_deployment", lambda *given: written.append(given))
    monkeypatch.chdir(tmp_path)
    shown = kcm("serve", "--model", "reviews@champion", "--build", "serve.yaml")
    assert shown.exit_code == 0, shown.stderr
    assert "reviews/2 is not certified on this runtime: the encoder runs elsewhere" in shown.stderr
    [(_, source, settings)] = written
    release = source.first()
    assert (release.version, (release.bundle / "bundle.json").read_text()) == ("reviews/2", champion)
    assert settings.serve.feedback.url == f"sqlite:///{tmp_path}/feedback.db", "what must outlive the cache of models"


def test_predict_asks_the_registry_of_its_run(registry: RunConfig, predictions: list[Any]) -> None:
    words = ["--config", REVIEWS, "--set", f"storage_path={registry.storage_path}"]
    shown = kcm("predict", "models:/reviews/1", "rows.csv", "--output", "answers.csv", *words)
    assert shown.exit_code == 0, shown.stderr
    assert (predictions[0][0][0] / "bundle.json").read_text() == "first"


def test_environment_sets_assets_unless_configured(
    fake_run: FakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Promise: assets are where the environment says unless the configuration does."""
    monkeypatch.setenv("KCM_ASSETS", str(tmp_path / "known"))
    kcm("run", REVIEWS, "--until", "train")
    assert fake_run.config.assets_path == tmp_path / "known"
    kcm("run", REVIEWS, "--until", "train", "--set", f"assets_path={tmp_path}/own")
    assert fake_run.config.assets_path == tmp_path / "own"


def test_a_run_can_end_with_every_stage_that_it_always_has() -> None:
    from pipelines.run import STAGES as STAGES_OF_THE_RUN
    from pipelines.stages.stage import Stage

    always = tuple(stage.stage for stage in STAGES_OF_THE_RUN if stage.applies is Stage.applies)
    assert get_args(StageName) == always


@pytest.mark.parametrize("stage", ["tasks", "register"])
def test_a_stage_runs_up_to_itself(stage: str, fake_run: FakeRun, tmp_path: Path) -> None:
    shown = kcm("run", REVIEWS, "--until", stage, "--json", str(tmp_path / "out.json"))
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert fake_run.until == stage
    assert json.loads((tmp_path / "out.json").read_text()) == {"name": "reviews"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "absent.yaml"], "no such configuration file (absent.yaml). `kcm init TABLE` writes one"),
        (["run", REVIEWS, "--set", "train.num_epoch=3"], "did you mean 'train.num_epochs'?"),
        (["run", REVIEWS, "--set", "train.num_epochs=none"], "train.num_epochs must be an integer, not 'none'"),
        (["run", REVIEWS, "--set", "train.num_epochs"], "Write it as key.path=value"),
        (["serve"], "nothing to serve"),
        (["explain", "models:/b@c"], "no registered model 'b@c'"),
        (["serve", "--bundle", "absent", "--model", "reviews@champion"], "name two models"),
        (["promote", REVIEWS, "9", "--set", "storage_path=nothing"], "no registered model 'reviews/9'"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = kcm(*words, "--json", "out.json")
    assert shown.exit_code == 2
    assert shown.stderr.startswith("error: ")
    assert shown.stderr.count("\n") == 1
    assert expected in shown.stderr
    assert shown.stdout == ""
    assert json.loads((tmp_path / "out.json").read_text()) == {"error": shown.stderr.strip().removeprefix("error: ")}


def test_the_reference_explains_installed_components_too(outside_package: Path) -> None:
    page = kcm("config").stdout
    assert "## `learner` with `name: anchor`\n" in page
    assert "`analytic`, `slda`, `anchor`, or `package.module:Class`" in page


def test_wrong_option_is_one_line() -> None:
    """Promise: a command line that cannot be parsed is one line with its own exit code."""
    words = [sys.executable, "-m", "jobs.cli", "label", "t.csv", "--lables", "a,b"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: no such option: --lables (Possible options: --labels, --llm, --yes). `kcm label -h` lists the options\n"
    )
