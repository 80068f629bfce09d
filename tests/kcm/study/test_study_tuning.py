"""Every network gets the same trials; the best score decides, and how much hangs on the learning rate is shown."""

from __future__ import annotations

from kcm.study import Settings, Trial, best_overrides, sensitivity, trials_of

SPACE = {"train.learning_rate": [0.1, 0.2], "learner.batch_size": [8, 16]}
SCORES = [0.5, 0.6, 0.9, 0.7]


def test_a_grid_has_every_combination() -> None:
    assert [tuple(values.values()) for values in trials_of(SPACE)] == [(0.1, 8), (0.1, 16), (0.2, 8), (0.2, 16)]


def test_the_best_trial_of_every_place_becomes_its_setting() -> None:
    trials = [Trial("replay@2/kan", values, score) for values, score in zip(trials_of(SPACE), SCORES, strict=True)]
    trials += [Trial("replay@2/mlp", values, -score) for values, score in zip(trials_of(SPACE), SCORES, strict=True)]
    settings = Settings(best_overrides(trials))
    kan, mlp = (settings.setting(network, "replay", 2, 10) for network in ("kan", "mlp"))
    assert (kan.train.learning_rate, kan.learner.batch_size) == (0.2, 8)
    assert (mlp.train.learning_rate, mlp.learner.batch_size) == (0.1, 8)


def test_sensitivity_is_the_best_score_at_every_learning_rate() -> None:
    trials = [Trial("replay/kan", values, score) for values, score in zip(trials_of(SPACE), SCORES, strict=True)]
    assert sensitivity(trials) == {"replay/kan": {"0.1": 0.6, "0.2": 0.9}}
