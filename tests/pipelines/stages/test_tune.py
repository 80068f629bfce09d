"""A search starts from the last one of the same space; one that was interrupted goes on, or is kept aside."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune as ray_tune

from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.stages.tune import Trial, Tune, forecast, restored_search, search_space
from pipelines.store.artefact import ArtefactStore, Recipe, write_json
from pipelines.store.storage import Storage
from pipelines.training.artefacts import TRIALS, TunedArtefact


@pytest.mark.parametrize(
    ("more", "rates"),
    [
        ({"train": {"optimizer": "adamw"}, "learner": {"name": "replay"}}, (0.5, 0.6)),
        ({"train": {"optimizer": "sgd"}, "learner": {"name": "replay"}}, (7.0, 8.0)),
        ({"train": {"optimizer": "sgd", "sgd_rate": 9.0}, "learner": {"name": "slda"}}, (9.0,)),
        ({"train": {"learning_rate": 0.9}, "learner": {"name": "analytic"}}, (0.9,)),
    ],
    ids=["adamw", "sgd", "slda", "analytic"],
)
def test_the_rates_that_are_searched_are_those_of_the_chosen_optimiser(more, rates) -> None:
    values = {"name": "a", "tasks": {}, "encoder": {"model": "e"}, "large": {"adapter": "recorded", "path": "l.csv"}}
    tune = {"learning_rates": [0.5, 0.6], "sgd_rates": [7.0, 8.0]}
    network = {"hidden": []}  # the closed forms are of a single layer
    config = parse_config(RunConfig, values | {"tune": tune, "network": network} | more)
    plan = SimpleNamespace(
        config=config, num_labels=3, tasks=("one",), learner=lambda name: config.learner.build(config.seed)
    )
    assert search_space(config.tune, plan, "kcm")["learning_rate"] == rates


def test_a_search_says_beforehand_what_it_may_take() -> None:
    assert forecast(32, 2, None) == "search: 32 trials, 2 at a time; most train a collaborator anew"
    assert forecast(32, 2, 15.0).endswith("anew, which took 15 s: at most some 4 min 0 s")


def test_dimensions_without_effect_are_not_searched() -> None:
    values = {"name": "a", "tasks": {}, "encoder": {"model": "e"}, "large": {"adapter": "recorded", "path": "l.csv"}}
    tune = {"gates": ["confidence", "signals"], "scopes": ["global", "per_task"]}
    config = parse_config(RunConfig, values | {"tune": tune, "network": {"hidden": []}})

    def space(tasks: tuple[str, ...]) -> dict[str, Any]:
        learner = lambda name: config.learner.build(config.seed)  # noqa: E731
        found = search_space(config.tune, SimpleNamespace(config=config, tasks=tasks, learner=learner), "kcm")
        return {name: found[name] for name in ("gate", "scope")}

    assert space(("one",)) == {"gate": ("confidence", "signals"), "scope": ("global",)}
    assert space(("one", "two")) == {"gate": ("confidence", "signals"), "scope": ("global", "per_task")}


def searched(store: ArtefactStore, trials: list[dict[str, Any]]) -> TunedArtefact:
    artefact, _ = store.build(Recipe("tune", 1, {}), lambda folder, scratch: write_json(folder / TRIALS, trials))
    return artefact.as_a(TunedArtefact)


def test_trials_are_recorded_in_every_run_so_that_those_lost_in_an_outage_come_again(tmp_path: Path) -> None:
    values = {"name": "a", "tasks": {}, "encoder": {"model": "e"}, "large": {"adapter": "recorded", "path": "l.csv"}}
    stage = Tune.of(parse_config(RunConfig, values))
    trials = [{"number": number, **trial(0.1, 0.2)} for number in range(2)]
    artefact = searched(ArtefactStore(tmp_path), trials)
    recorded: list[Any] = []
    tracking: Any = SimpleNamespace(log_trial=lambda *given: recorded.append(given))
    for _ in range(2):
        stage.publish(artefact, Context("a", ArtefactStore(tmp_path), tmp_path, tracking=tracking))
    metrics = {"area": 0.5, "calls_saved": 0.5, "promised": 0.2}
    once = [(f"kcm {n}", f"{artefact.fingerprint}/kcm {n}", {"learning_rate": 0.1}, metrics) for n in range(2)]
    assert recorded == once * 2
    stage.publish(artefact, Context("a", ArtefactStore(tmp_path), tmp_path))  # of a run without a record


def trial(rate: float, keep_rate: float, *, pareto: bool = True, collaborator: str = "kcm") -> dict[str, Any]:
    objectives = {"promised": keep_rate, "calls_saved": 0.5, "area": 0.5}
    return {"collaborator": collaborator, "params": {"learning_rate": rate}, "pareto": pareto} | objectives


def restored(search: Path, *rest: Any) -> ray_tune.Tuner | None:
    return restored_search(Storage.at(search.parent), search.name, *rest)


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """The folder of a search that a crash has torn."""
    folder = tmp_path / "scratch" / "tune-kcm"
    folder.mkdir(parents=True)
    (folder / "tuner.pkl").write_bytes(b"torn")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "one.json").write_text("{}")
    return folder


@pytest.mark.parametrize("content", [b"torn", b"", b"cnowhere\nNothing\n.", b"(K\x01K\x02t.", None])
def test_a_search_that_cannot_be_read_is_kept_aside_and_said(
    content: bytes | None, search: Path, tmp_path: Path
) -> None:
    (search / "tuner.pkl").unlink() if content is None else (search / "tuner.pkl").write_bytes(content)
    (search / "trial").write_text("what a trial left")
    lines: list[str] = []
    for number in (1, 2):
        assert restored(search, tmp_path / "results", Trial, tmp_path / "run", lines.append) is None
        assert not search.exists()
        assert not (tmp_path / "results").exists()
        kept = tmp_path / "run" / f"tune-kcm-unreadable-{number}"
        assert str(kept) in lines[-1].replace("\\", "")
        if number == 1:
            assert (kept / "trial").read_text() == "what a trial left"
            assert (kept / "results" / "one.json").exists()
            search.mkdir()
            (search / "tuner.pkl").write_bytes(b"torn again")
    assert restored(search, tmp_path / "results", Trial, tmp_path / "run", lines.append) is None
    assert len(lines) == 2


def test_a_search_that_another_node_began_is_gone_on_with(
    node_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Storage.at(node_bucket)
    (begun.root / "tune-kcm").mkdir(parents=True)
    (begun.root / "tune-kcm" / "tuner.pkl").write_bytes(b"whole")
    begun.keep(begun.root / "tune-kcm")
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "another node"))
    storage = Storage.at(node_bucket)
    monkeypatch.setattr(ray_tune.Tuner, "restore", lambda path, *given, **more: Path(path, "tuner.pkl").read_bytes())
    found = restored_search(storage, "tune-kcm", storage.root / "results", Trial, tmp_path / "run", print)
    assert found == b"whole"


@pytest.mark.parametrize("fault", [OSError("a disk that fails"), MemoryError(), KeyboardInterrupt()])
def test_a_fault_of_the_machine_leaves_the_search_where_it_is(
    fault: BaseException, search: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def restore(*given: object, **more: object) -> None:
        raise fault

    monkeypatch.setattr(ray_tune.Tuner, "restore", restore)
    with pytest.raises(type(fault)):
        restored(search, tmp_path / "results", Trial, tmp_path / "run", print)
    assert (search / "tuner.pkl").exists()
    assert (tmp_path / "results" / "one.json").exists()
