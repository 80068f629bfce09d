"""A router learns from a frame of logged answers, certifies on rows that it has not seen, and routes new ones."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kcm.api.cascade import load
from kcm.api.router import Router
from kcm.assets import assets_place
from kcm.errors import ConfigError, DataError
from kcm.routing.config import RequestConfig
from kcm.routing.frame import RoutingFrame


def logged(num_rows: int = 3000, seed: int = 0) -> pd.DataFrame:
    """The small model is right about easy questions, the large one nearly always."""
    rng = np.random.default_rng(seed)
    easy = rng.random(num_rows) < 0.6
    return pd.DataFrame(
        {
            "prompt": [
                f"{'easy' if is_easy else 'hard'} question {number:06d}"
                for is_easy, number in zip(easy, rng.permutation(10**6), strict=False)
            ],
            "S": np.where(easy, rng.random(num_rows) < 0.98, rng.random(num_rows) < 0.3).astype(int),
            "L": (rng.random(num_rows) < 0.95).astype(int),
            "domain": np.where(np.arange(num_rows) % 2, "one", "two"),
        }
    )


@pytest.fixture(scope="module")
def router() -> Router:
    frame = logged()
    router = Router("none").fit(frame, text="prompt", small_correct="S", large_correct="L")
    router.certify(frame, epsilon=0.05)
    return router


def test_easy_inputs_go_small_and_hard_ones_large(router: Router) -> None:
    new = logged(200, seed=1)[["prompt"]]  # nobody has answered them
    routes = router.predict(new)
    easy = new["prompt"].str.startswith("easy").to_numpy()
    assert set(routes[easy]) == {"small"}
    assert (routes[~easy] == "small").mean() < 0.25  # as many as 5 points allow
    assert router.scores(new)[easy].min() > router.scores(new)[~easy].max()


def test_the_certificate_is_that_of_the_command(router: Router, tmp_path: Path) -> None:
    frame = logged()
    frame.to_csv(tmp_path / "logged.csv", index=False)
    assert router.fitted is not None
    router.fitted.write(tmp_path / "router")
    names = {"text": "prompt", "small_correct": "S", "large_correct": "L"}
    opened = RoutingFrame.open(tmp_path / "logged.csv", names, None, tmp_path, tmp_path / "router")
    expected = opened.certify(RequestConfig(epsilon=0.05), None)
    found = router.certify(frame, epsilon=0.05)
    assert found["decision"] == expected["decision"] == "threshold"
    assert found["threshold"] == pytest.approx(expected["threshold"])
    assert {name: found[name] for name in ("num_rows", "bound", "valid")} == {
        name: expected[name] for name in ("num_rows", "bound", "valid")
    }


def test_tasks_may_have_thresholds_of_their_own() -> None:
    frame = logged(3000)
    router = Router("none").fit(frame, text="prompt", small_correct="S", large_correct="L", task="domain")
    result = router.certify(frame, epsilon=0.1, scope="per_task")
    assert result["tasks"].keys() == {"one", "two"}
    assert router.policy is not None
    assert router.policy.task_decisions.keys() == {"one", "two"}
    assert set(router.predict(logged(50, seed=2).drop(columns=["S", "L"]))) == {"small", "large"}


@pytest.mark.parametrize("named", [True, False])
def test_assets_may_lie_in_a_bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: bool) -> None:
    """Promise: a bucket is a place for assets in Python too, as an argument and in KCM_ASSETS."""
    used: list[Path] = []
    monkeypatch.setattr("kcm.api.cascade.load_cascade", lambda folder, assets, *_, **__: used.append(assets))
    monkeypatch.setenv("KCM_ASSETS", "s3://other/assets" if named else "s3://rows/assets")
    assets = "s3://rows/assets" if named else None
    load(tmp_path, assets=assets)
    used.append(Router(assets=assets).assets)
    assert [assets_place(folder) for folder in used] == ["s3://rows/assets"] * 2


def test_what_cannot_be_done_yet_says_what_to_call(router: Router) -> None:
    with pytest.raises(ConfigError, match="not fitted"):
        Router().certify(logged(10))
    with pytest.raises(ConfigError, match="nothing is certified yet"):
        Router("none").fit(logged(100), text="prompt", small_correct="S", large_correct="L").predict(logged(10))
    with pytest.raises(DataError, match=r"no column 'prompt' \(text\).*Did you mean 'prompts'"):
        router.predict(logged(10).rename(columns={"prompt": "prompts"}))
    with pytest.raises(ConfigError, match="unknown key 'small_corect'"):
        Router().fit(logged(10), text="prompt", small_corect="S", large_correct="L")
