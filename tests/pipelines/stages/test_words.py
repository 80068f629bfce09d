"""Words join the features of texts if they help; they are fitted to the first task and stored with the features."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcm.encoders.text import TextEncoder
from kcm.encoders.text_settings import fits_words
from kcm.encoders.words import Words
from kcm.inputs.content import PROBE, Content
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.stages.features import Features
from pipelines.stages.outcomes import Outcomes
from pipelines.stages.tasks import Tasks
from pipelines.store.features import SECONDS, WORDS, FeaturesArtefact, feature_matrix
from pipelines.store.outcomes import OutcomesArtefact
from tests.pipelines.runs import run_of
from tests.tiny_bert import save_bert

NUM_ROWS = 240
OPINIONS = ("superb", "dreadful")  # unknown to the tiny encoder, which reads both as the same token
NOUNS = ("film", "book", "song", "play", "meal")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_bert(tmp_path_factory.mktemp("bert"), ("a", "the", *NOUNS)))


def run_on_texts(
    folder: Path, model: str, tasks: int = 1, words: str = "auto", **more: Any
) -> tuple[RunConfig, Context]:
    """A run on texts whose opinion is the label."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    lines = ["text,label,task"]
    for task in range(tasks):
        for row in range(NUM_ROWS):
            label = int(rng.integers(2))
            first, second = rng.choice(NOUNS, 2)
            lines.append(f"row {row} the {first} and {OPINIONS[label]} {second} of week {task},{label},t{task}")
    (folder / "rows.csv").write_text("\n".join(lines))
    large = {"adapter": "classifier", "encoder": {"model": model}}
    sections = {"tasks": {"scenario": "domain_incremental", "num_tasks": None}, "large": large} | more
    encoder = {"model": model, "words": words}
    return run_of(folder, folder / "rows.csv", source={"task_column": "task"}, encoder=encoder, **sections)


def features_of(config: RunConfig, context: Context) -> FeaturesArtefact:
    """The features of a run, by this process."""
    sequence = Tasks.of(config).build({}, context)
    features = Features.of(config).build({"sequence": sequence}, context)
    assert isinstance(features, FeaturesArtefact)
    return features


def test_both_sides_with_one_encoder_encode_once(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: with words beside the small side's features, the large model's answers are those without, at no cost."""
    encoded: list[str] = []

    class Counting(TextEncoder):
        def encode(self, inputs: Sequence[Content]) -> np.ndarray:
            encoded.extend(content.text for content in inputs if content is not PROBE)  # which tells the width
            return super().encode(inputs)

    monkeypatch.setattr("kcm.encoders.text.TextEncoder", Counting)
    answers = []
    for words in ("auto", "none"):
        encoded.clear()
        config, context = run_on_texts(tmp_path / words, model, words=words)
        features = features_of(config, context)
        outcomes = Outcomes.of(config).build({"sequence": features.sequence}, context)
        assert (features.num_words > 0, sorted(encoded)) == (words == "auto", sorted(set(encoded)))
        assert len(encoded) == NUM_ROWS
        answers.append(outcomes.as_a(OutcomesArtefact).task(0).drop_columns(["large_cost"]))
    assert answers[0].equals(answers[1])


def seconds_of(features: FeaturesArtefact) -> tuple[int, str, Any]:
    """Position, name and values of the column of seconds, which no two runs share."""
    rows = features.task(0)
    return rows.column_names.index(SECONDS), SECONDS, rows[SECONDS]


def test_words_that_carry_the_label_join_the_features(tmp_path: Path, model: str) -> None:
    """Promise: topics of every row follow its embedding, and the encoder of the run computes the same features."""
    config, context = run_on_texts(tmp_path, model)
    features = features_of(config, context)
    words = Words.load(features.below(WORDS))
    assert features.num_words == words.num_topics > 0
    rows, values_ND = features.sequence.task(0), feature_matrix(features.task(0))
    texts = rows["text"].to_pylist()
    np.testing.assert_allclose(values_ND[:, -words.num_topics :], words.encode(texts), atol=1e-6)
    encoder = features.made_by(config.encoder)
    assert encoder.identity(tmp_path) == features.identity != config.encoder.identity(tmp_path)
    assert encoder.load(tmp_path).dim == features.dim == values_ND.shape[1]


def test_later_tasks_do_not_change_words(tmp_path: Path, model: str) -> None:
    """Promise: a sequence that grows has the words of its first task."""
    one, two = (features_of(*run_on_texts(tmp_path / f"{tasks}", model, tasks)) for tasks in (1, 2))
    first, second = (Words.load(features.below(WORDS)) for features in (one, two))
    texts = one.sequence.task(0)["text"].to_pylist()
    np.testing.assert_allclose(first.encode(texts), second.encode(texts), atol=1e-5)
    assert np.abs(first.encode(texts)).max() > 0.01


def test_useless_words_cost_nothing(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: if words do not help left-out rows, features and identity are those of an encoder without words."""
    monkeypatch.setattr("pipelines.stages.words.useful_scale", lambda *_: 0.0)
    useless, without = (features_of(*run_on_texts(tmp_path / name, model, words=name)) for name in ("auto", "none"))
    assert useless.num_words == without.num_words == 0
    assert useless.identity == without.identity
    assert useless.task(0).equals(without.task(0).set_column(*seconds_of(useless)))


SPLINES = {"learner": {"name": "analytic"}, "network": {"hidden": []}}


@pytest.mark.parametrize("more", [{"learner": {"name": "replay"}}, SPLINES])
def test_words_need_units_solved_in_closed_form(tmp_path: Path, model: str, more: dict[str, Any]) -> None:
    """Promise: no words are fitted for networks that would bend them, or that are trained step by step."""
    config, _ = run_on_texts(tmp_path, model, **more)
    assert not fits_words(config.encoder)
