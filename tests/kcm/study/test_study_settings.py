"""Settings go from wide to narrow, and name what does not exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from kcm.errors import ConfigError
from kcm.study import Settings


def test_the_narrowest_place_wins() -> None:
    rate = "learning_rate"
    settings = Settings(
        {
            "default": {"train": {rate: 0.1, "num_epochs": 3}},
            "replay": {"train": {rate: 0.2}, "learner": {"batch_size": 5}},
            "replay/kan": {"train": {rate: 0.3}},
            "replay@2/kan": {"train": {rate: 0.4}},
        }
    )
    rates = [
        settings.setting(network, learner, memory, 10).train.learning_rate
        for network, learner, memory in (
            ("kan", "replay", 2.0),
            ("kan", "replay", 10.0),
            ("mlp", "replay", 2.0),
            ("mlp", "joint", None),
        )
    ]
    assert rates == [0.4, 0.3, 0.2, 0.1]
    both = settings.setting("kan", "replay", 2.0, 10)
    assert (both.train.num_epochs, both.learner.batch_size, both.learner.memory) == (3, 5, 20)


def test_settings_lie_over_others_place_by_place() -> None:
    wide = Settings(
        {"replay": {"train": {"num_epochs": 3, "learning_rate": 0.1}}, "joint": {"train": {"num_epochs": 4}}}
    )
    both = Settings({"replay": {"train": {"learning_rate": 0.2}}}).over(wide)
    replay, joint = (both.setting("kan", learner, None, 10).train for learner in ("replay", "joint"))
    assert (replay.num_epochs, replay.learning_rate, joint.num_epochs) == (3, 0.2, 4)


def test_judge_and_small_are_one_network_of_one_layer() -> None:
    network = Settings({}).setting("kan", "finetune", None, 10).network
    assert (network.shared, network.hidden) == (True, ())


@pytest.mark.parametrize(
    ("place", "message"),
    [("repaly", "unknown learner 'repaly'"), ("replay/knn", "unknown network 'knn'")],
)
def test_an_unknown_place_is_refused(place, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings({place: {}})


def test_an_unknown_key_is_refused_with_the_file_and_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("default: {train: {lerning_rate: 0.1}}\n")
    with pytest.raises(ConfigError, match=r"train.lerning_rate.*learning_rate.*settings.yaml"):
        Settings.load(path).setting("kan", "replay", 2.0, 10)


@pytest.mark.parametrize("content", ["[1]", "replay: 3", "a: [", "\xff"])
def test_a_file_that_holds_no_settings_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"settings\.yaml"):
        Settings.load(path)
